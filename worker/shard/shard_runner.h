// The runner of a whole model: computes plans on a thread of its own, in the
// order in which they were launched.
#ifndef CARAVAN_WORKER_SHARD_SHARD_RUNNER_H_
#define CARAVAN_WORKER_SHARD_SHARD_RUNNER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/model_runner.h"
#include "worker/model/model_loader.h"
#include "worker/shard/shard.h"
#include "worker/shard/stage_thread.h"
#include "worker/shard/step_results.h"

namespace caravan::worker {

struct ShardRunnerOptions {
  int32_t block_count = 0;        // of the KV cache; > 0
  int32_t max_step_tokens = 512;  // most tokens in a plan
  int32_t max_logits_rows = 64;   // more are computed in slices of as many
  int32_t max_in_flight = 1;      // plans launched and not collected
};

// What a runner refuses at Launch. kInternal: the engine's limits are wider
// than the runner's.
absl::Status CheckLaunch(const BatchPlan& plan, int in_flight,
                         int32_t max_in_flight, int32_t max_step_tokens);

// Called by one thread (ModelRunner); the computation has its own.
class ShardRunner final : public ModelRunner, private StageOutput {
 public:
  // Allocates cache and activations. `model`, which must be whole, and
  // `backend` must outlive the runner, which alone uses the backend from now
  // on.
  static absl::StatusOr<std::unique_ptr<ShardRunner>> Create(
      const LoadedModel* model, Backend* backend,
      const ShardRunnerOptions& options);

  void AddSequence(SequenceSpec spec) override;
  void DropSequence(SequenceId id) override;
  absl::Status Launch(BatchPlan plan) override;
  absl::StatusOr<StepResult> Collect() override;
  int in_flight() const override { return in_flight_; }

  // As allocated: what the memory plan said.
  size_t kv_bytes() const { return shard_->kv_bytes(); }
  size_t arena_bytes() const { return shard_->arena_bytes(); }

 private:
  ShardRunner(std::unique_ptr<Shard> shard, int32_t max_in_flight);

  // A whole model has no stage after it.
  void OnAdd(const SequenceSpec& spec) override {}
  void OnDrop(SequenceId id) override {}
  void OnHidden(const BatchPlan& plan, std::span<const float> hidden,
                absl::Duration compute_time) override {}
  void OnResult(StepResult result) override;
  void OnFailure(const absl::Status& status) override;

  const int32_t max_in_flight_;
  const std::unique_ptr<Shard> shard_;
  int in_flight_ = 0;  // of the calling thread
  StepResults results_;
  StageThread thread_;  // last: it sees all of the above
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_SHARD_RUNNER_H_
