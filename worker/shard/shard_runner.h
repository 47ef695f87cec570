// The runner of one shard: computes plans with a backend, on a thread of its
// own, in the order in which they were launched.
#ifndef CARAVAN_WORKER_SHARD_SHARD_RUNNER_H_
#define CARAVAN_WORKER_SHARD_SHARD_RUNNER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <thread>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/engine/model_runner.h"
#include "worker/model/llama.h"
#include "worker/model/model_loader.h"
#include "worker/model/rope.h"
#include "worker/ops/check.h"
#include "worker/shard/step_batch.h"

namespace caravan::worker {

struct ShardRunnerOptions {
  int32_t block_count = 0;        // of the KV cache; > 0
  int32_t max_step_tokens = 512;  // most tokens in a plan
  int32_t max_logits_rows = 64;   // more are computed in slices of as many
  int32_t max_in_flight = 1;      // plans launched and not collected
};

// Called by one thread (ModelRunner); the computation has its own.
class ShardRunner final : public ModelRunner {
 public:
  // Allocates cache and activations. `model` and `backend` must outlive the
  // runner, which alone uses the backend from now on.
  static absl::StatusOr<std::unique_ptr<ShardRunner>> Create(
      const LoadedModel* model, Backend* backend,
      const ShardRunnerOptions& options);
  // Ends after the plan that is being computed; others are dropped.
  ~ShardRunner() override;

  void AddSequence(SequenceSpec spec) override;
  void DropSequence(SequenceId id) override;
  absl::Status Launch(BatchPlan plan) override;
  absl::StatusOr<StepResult> Collect() override;
  int in_flight() const override { return in_flight_; }

  // As allocated: what the memory plan said.
  size_t kv_bytes() const { return kv_->bytes; }
  size_t arena_bytes() const;

 private:
  using Command = std::variant<SequenceSpec, SequenceId, BatchPlan>;

  ShardRunner(const LoadedModel* model, Backend* backend,
              const ShardRunnerOptions& options, std::unique_ptr<KvStorage> kv,
              Activations activations);

  void Push(Command command);

  // On the compute thread.
  void ComputeLoop();
  void Apply(Command command);
  absl::StatusOr<StepResult> Compute(const BatchPlan& plan);
  absl::Status Forward(const BatchPlan& plan, const StepBatch& batch);
  void FillRope(const StepBatch& batch);
  absl::Status SampleSlice(const BatchPlan& plan, const StepBatch& batch,
                           std::span<const LogitsRequest> slice,
                           StepResult& result);
  void TakeScore(const LogitsRequest& request, const TokenScore& score,
                 RowResult& row);

  // Set once.
  const ShardRunnerOptions options_;
  const ModelConfig& config_;
  const Rope rope_;

  // Of the compute thread.
  CheckedOps ops_;
  Llama llama_;
  const std::unique_ptr<KvStorage> kv_;
  Activations activations_;
  RunnerSequences sequences_;
  absl::Status failure_;  // the first one: sticky

  // Of the calling thread.
  int in_flight_ = 0;

  // Between the two. Sequences to add and drop are few: the engine's running
  // set bounds them, and Launch bounds the plans.
  absl::Mutex mutex_;
  std::deque<Command> commands_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::unique_ptr<absl::StatusOr<StepResult>>> results_
      ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::jthread thread_;  // last: it sees all of the above
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_SHARD_RUNNER_H_
