// Sends a load plan and takes the times.
#ifndef CARAVAN_SERVICES_CLI_LOAD_RUNNER_H_
#define CARAVAN_SERVICES_CLI_LOAD_RUNNER_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "services/cli/load_plan.h"

namespace caravan::cli {

// One request on the wire.
struct LoadRequest {
  std::vector<int32_t> prompt_ids;
  int32_t output_tokens = 0;
  uint64_t seed = 0;
};

// How requests reach the gateway. Thread-safe.
class LoadClient {
 public:
  using OnTokens = std::function<void(int32_t new_tokens)>;
  using OnDone = std::function<void(absl::Status)>;

  virtual ~LoadClient() = default;
  // Returns at once. `on_tokens` comes with each event that has tokens, one
  // after the other; then `on_done` once.
  virtual void Start(const LoadRequest& request, OnTokens on_tokens,
                     OnDone on_done) = 0;
};

// What happened to one request. Times are since its start.
struct LoadOutcome {
  absl::Status status;
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;
  absl::Duration first_token = absl::InfiniteDuration();
  std::vector<absl::Duration> gaps;  // between events with tokens
  absl::Duration total;
};

struct LoadResult {
  std::vector<LoadOutcome> outcomes;  // in the order of the plan
  absl::Duration wall;
};

// Runs the whole plan: with `plan.rate` requests start at their arrivals, else
// `concurrency` run at any time. Blocks until all have ended.
LoadResult RunLoad(const LoadPlanOptions& plan, int32_t concurrency,
                   LoadClient& client, const Clock& clock);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_LOAD_RUNNER_H_
