// A plan laid out for the forward page: flat token arrays, cache slots,
// attention rows, and which tokens' logits are wanted for what.
#ifndef CARAVAN_WORKER_SHARD_STEP_BATCH_H_
#define CARAVAN_WORKER_SHARD_STEP_BATCH_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/batch_plan.h"
#include "worker/ops/ops.h"
#include "worker/ops/sampling_state.h"

namespace caravan::worker {

// A sequence as the runner keeps it between steps.
struct RunnerSequence {
  std::shared_ptr<const std::vector<TokenId>> prompt;
  int32_t prompt_candidates = 0;
  std::unique_ptr<SamplingState> state;
  absl::Status fault;  // not OK: ids outside of the vocabulary; never computed

  RunnerSequence(SequenceSpec spec, int32_t vocab_size);
  int32_t prompt_length() const { return static_cast<int32_t>(prompt->size()); }
};

using RunnerSequences = absl::flat_hash_map<SequenceId, RunnerSequence>;

// A token whose logits are wanted: to sample after it, or to score the prompt
// token that follows it.
struct LogitsRequest {
  int32_t token = 0;     // index in the step
  int32_t plan_row = 0;  // whose result it belongs to
  bool sample = false;
  TokenId scored_id = 0;  // where not sampled
};

// Owns nothing of the plan, which must outlive it. Plain data.
struct StepBatch {
  std::vector<int32_t> ids;
  std::vector<int64_t> slots;
  std::vector<int32_t> positions;
  std::vector<int32_t> prompt_lengths;  // of each token's sequence
  std::vector<AttentionRow> rows;
  std::vector<LogitsRequest> requests;
};

// Lays out the rows whose sequences have no fault. An unknown sequence or
// blocks that do not cover a row are faults of the engine: kInternal.
absl::StatusOr<StepBatch> MakeStepBatch(const BatchPlan& plan,
                                        const RunnerSequences& sequences);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_STEP_BATCH_H_
