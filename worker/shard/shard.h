// Computes the steps of one shard: its layers of every plan, and where the
// model ends the sampling too.
#ifndef CARAVAN_WORKER_SHARD_SHARD_H_
#define CARAVAN_WORKER_SHARD_SHARD_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/batch_plan.h"
#include "worker/model/llama.h"
#include "worker/model/model_loader.h"
#include "worker/model/rope.h"
#include "worker/ops/check.h"
#include "worker/shard/step_batch.h"

namespace caravan::worker {

struct ShardOptions {
  int32_t block_count = 0;        // of the KV cache; > 0
  int32_t max_step_tokens = 512;  // most tokens in a plan
  int32_t max_logits_rows = 64;   // more are computed in slices of as many
};

// Not thread-safe: one thread, which alone uses the backend.
class Shard {
 public:
  // Allocates cache and activations. `model` and `backend` must outlive the
  // shard.
  static absl::StatusOr<std::unique_ptr<Shard>> Create(
      const LoadedModel* model, Backend* backend, const ShardOptions& options);

  const Stage& stage() const { return config_.stage; }
  int32_t max_step_tokens() const { return options_.max_step_tokens; }

  void AddSequence(SequenceSpec spec);
  void DropSequence(SequenceId id) { sequences_.erase(id); }
  // For another life of the replica: blocks are whatever plans say of them.
  void DropAllSequences() { sequences_.clear(); }

  // Begins a plan: lays its rows out. Errors: kInternal for plans that break
  // the contract (unknown sequences, too few blocks, too many tokens).
  absl::Status Begin(BatchPlan plan);

  // The plan's residual stream, (tokens, hidden_size) without gaps: a stage
  // that is not the first has it filled in before Forward, and every stage
  // finds it there afterwards. Valid until the next Begin.
  std::span<float> hidden();
  const BatchPlan& plan() const { return plan_; }

  // Copies blocks and computes the stage's layers.
  absl::Status Forward();

  // Last stage, after Forward: samples and scores what the plan asks for.
  absl::StatusOr<StepResult> Sample();

  // As allocated: what the memory plan said.
  size_t kv_bytes() const { return kv_->bytes; }
  size_t arena_bytes() const;

 private:
  Shard(const LoadedModel* model, Backend* backend, const ShardOptions& options,
        std::unique_ptr<KvStorage> kv, Activations activations);

  StepResult EmptyResult() const;
  void FillRope();
  absl::Status SampleSlice(std::span<const LogitsRequest> slice,
                           StepResult& result);
  void TakeScore(const LogitsRequest& request, const TokenScore& score,
                 RowResult& row);

  const ShardOptions options_;
  const ModelConfig& config_;
  const Rope rope_;
  CheckedOps ops_;
  Llama llama_;
  const std::unique_ptr<KvStorage> kv_;
  Activations activations_;
  RunnerSequences sequences_;

  // Of the plan that was begun.
  BatchPlan plan_;
  StepBatch batch_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_SHARD_H_
