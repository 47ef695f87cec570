// From flags to a model that runs: backend, memory plan, weights, runner,
// identity.
#ifndef CARAVAN_WORKER_SERVER_MODEL_STARTUP_H_
#define CARAVAN_WORKER_SERVER_MODEL_STARTUP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caravan/v1/model.pb.h"
#include "caravan/v1/worker.pb.h"
#include "worker/engine/engine.h"
#include "worker/engine/model_runner.h"
#include "worker/model/model_loader.h"
#include "worker/ops/backend.h"
#include "worker/server/options.h"
#include "worker/server/stage_handshake.h"
#include "worker/shard/rank_backend.h"
#include "worker/shard/shard.h"

namespace caravan::worker {

// In the order in which its parts depend on each other.
struct ServedModel {
  std::unique_ptr<Backend> backend;
  ModelDescription description;
  std::string numerics_class;
  std::string fingerprint;              // 32 bytes
  std::unique_ptr<LoadedModel> loaded;  // null with --null-model
  std::unique_ptr<ModelRunner> runner;  // of a whole model
  std::unique_ptr<Shard> shard;         // of a stage of several
  int32_t block_count = 0;
  v1::ModelInfo info;
  v1::MemoryPlan planned;
  v1::MemoryPlan allocated;
  // Of each rank, where there are several.
  std::vector<RankMemory> planned_ranks;
  std::vector<RankMemory> allocated_ranks;
};

// Loads what the flags name; `progress` is called on this thread. Errors: those
// of the model's files, kMemoryPlan, kUnsupportedParameter for a device or type
// that this build or machine does not have.
absl::StatusOr<std::unique_ptr<ServedModel>> StartModel(
    const WorkerOptions& options, const LoadProgress& progress);

// A stage of several as it tells the others; `worker_id` names this process.
absl::StatusOr<StageFacts> StageFactsOf(const WorkerOptions& options,
                                        const ServedModel& model,
                                        const std::string& worker_id);

// First stage of several, once the chain stands: fills in model.info, which
// StartModel does for a whole model.
absl::Status IdentifyReplica(const WorkerOptions& options,
                             const ReplicaFacts& replica, ServedModel* model);

// What the engine is told of it.
EngineOptions EngineOptionsOf(const WorkerOptions& options,
                              const ServedModel& model);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_MODEL_STARTUP_H_
