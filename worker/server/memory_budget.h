// How many KV blocks a worker gets: decided before anything is allocated.
#ifndef CARAVAN_WORKER_SERVER_MEMORY_BUDGET_H_
#define CARAVAN_WORKER_SERVER_MEMORY_BUDGET_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/model/config.h"
#include "worker/model/memory_plan.h"
#include "worker/ops/backend.h"

namespace caravan::worker {

// What was asked for. At most one of the first two; neither: enough for
// `max_running` full contexts, but no more than half of what the weights leave
// of the available memory.
struct KvRequest {
  int64_t blocks = 0;        // exactly so many
  int64_t memory_bytes = 0;  // as many as fit
  int32_t max_running = 0;
  int64_t available_bytes = 0;  // of the machine; see AvailableMemoryBytes
};

// Error: kMemoryPlan, with bytes needed and available, when weights, arenas
// and KV do not fit or not one block does.
absl::StatusOr<int32_t> DecideKvBlocks(const KvRequest& request,
                                       const ModelConfig& config,
                                       const MemoryPlan& plan,
                                       const Backend& backend);

// Memory that this process can still take: the least of what the machine has
// and what its control group allows.
int64_t AvailableMemoryBytes();

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_MEMORY_BUDGET_H_
