// The part of `caravan bench` that needs no gateway: --engine.
#ifndef CARAVAN_SERVICES_CLI_BENCH_ENGINE_H_
#define CARAVAN_SERVICES_CLI_BENCH_ENGINE_H_

#include <CLI/CLI.hpp>

#include "absl/status/status.h"
#include "worker/bench/engine_bench.h"

namespace caravan::cli {

// Flags that only the engine's bench has.
void AddEngineBenchFlags(CLI::App& app,
                         worker::bench::EngineBenchOptions& options);

// Runs and prints. Notes about samples go to standard error.
absl::Status RunEngineBenchCommand(
    const worker::bench::EngineBenchOptions& options, bool json);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_BENCH_ENGINE_H_
