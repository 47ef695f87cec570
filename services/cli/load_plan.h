// What a load test sends, and when: drawn from one seed, so that two runs send
// the same.
#ifndef CARAVAN_SERVICES_CLI_LOAD_PLAN_H_
#define CARAVAN_SERVICES_CLI_LOAD_PLAN_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace caravan::cli {

// Both ends are inclusive.
struct LengthRange {
  int32_t least = 0;
  int32_t most = 0;
};

// "128" or "64:256", each in [1, 1,000,000].
absl::StatusOr<LengthRange> ParseLengthRange(std::string_view flag,
                                             std::string_view text);

struct LoadPlanOptions {
  int32_t request_count = 0;
  LengthRange prompt_tokens;
  LengthRange output_tokens;
  int32_t shared_prefix_tokens = 0;  // leading ids that all prompts share
  int32_t vocabulary = 256;          // ids are drawn below it
  double rate = 0;  // arrivals per second on average; 0: closed loop
  uint64_t seed = 0;
};

struct PlannedRequest {
  absl::Duration arrival;  // after the start; zero in a closed loop
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;
  uint64_t seed = 0;  // of the request's sampling
};

// Arrivals of an open loop are a Poisson process.
std::vector<PlannedRequest> MakeLoadPlan(const LoadPlanOptions& options);

// The prompt's ids of a planned request.
std::vector<int32_t> PromptOf(const LoadPlanOptions& options,
                              const PlannedRequest& request);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_LOAD_PLAN_H_
