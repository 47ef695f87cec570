// What clients ask of a simulated fleet. The six traces differ in how much of
// a prompt others have too, and in how evenly requests come; a seed each, and
// our own arithmetic, so that they are the same everywhere. A test holds their
// digests: policies are tuned on them, not they on policies.
#ifndef CARAVAN_TESTS_SIMULATION_FLEET_TRACE_H_
#define CARAVAN_TESTS_SIMULATION_FLEET_TRACE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace caravan::simulation {

struct TraceSpec {
  std::string name;
  double shared = 0;  // share of each prompt that others begin with too
  bool bursty = false;
  uint64_t seed = 0;
};

// Prompts of 512, 1,024 and 2,048 tokens come 60, 30 and 10 times in a
// hundred; the shared part is the beginning of one of 64 texts, the k-th as
// often as 1/k says; outputs are 16 to 256 tokens, about 60 on average.
const std::array<TraceSpec, 6>& FixedTraces();

struct TraceRequest {
  double arrival = 0;  // in mean gaps between requests
  std::shared_ptr<const std::vector<int32_t>> prompt;
  int32_t shared_tokens = 0;
  int32_t output_tokens = 0;
  int32_t tenant = 0;
  int32_t priority = 0;
};

std::vector<TraceRequest> MakeTrace(const TraceSpec& spec, int request_count);

// Of everything in it; arrivals to a millionth.
uint64_t DigestOf(const std::vector<TraceRequest>& trace);

// Random numbers that are the same with every standard library.
class TraceRandom {
 public:
  explicit TraceRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  double Uniform();  // in [0, 1)
  double Exponential(double mean);
  uint64_t Below(uint64_t limit) { return Next() % limit; }

 private:
  uint64_t state_;
};

}  // namespace caravan::simulation

#endif  // CARAVAN_TESTS_SIMULATION_FLEET_TRACE_H_
