// A report of the engine's bench for people and for programs.
#ifndef CARAVAN_WORKER_BENCH_ENGINE_REPORT_H_
#define CARAVAN_WORKER_BENCH_ENGINE_REPORT_H_

#include <string>

#include "worker/bench/engine_bench.h"

namespace caravan::worker::bench {

// One line: "decode   1 x   128  18.2 tok/s ...".
std::string LineOf(const PointReport& point);
std::string ToText(const EngineBenchReport& report);
std::string ToJson(const EngineBenchReport& report);

}  // namespace caravan::worker::bench

#endif  // CARAVAN_WORKER_BENCH_ENGINE_REPORT_H_
