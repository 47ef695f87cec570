// A runner that computes nothing, so that what is measured is everything else.
#ifndef CARAVAN_WORKER_SHARD_NULL_RUNNER_H_
#define CARAVAN_WORKER_SHARD_NULL_RUNNER_H_

#include <cstdint>
#include <deque>

#include "absl/container/flat_hash_map.h"
#include "worker/engine/model_runner.h"

namespace caravan::worker {

// Answers as a model whose distribution is uniform would: every logprob is
// -log(vocabulary), every rank 1. The token at output position p is the
// (p mod vocabulary)-th id, or the next one that ends no choice.
//
// Called by one thread (ModelRunner).
class NullRunner final : public ModelRunner {
 public:
  explicit NullRunner(int32_t vocab_size) : vocab_size_(vocab_size) {}

  void AddSequence(SequenceSpec spec) override;
  void DropSequence(SequenceId id) override;
  absl::Status Launch(BatchPlan plan) override;
  absl::StatusOr<StepResult> Collect() override;
  int in_flight() const override { return static_cast<int>(plans_.size()); }

 private:
  RowResult Answer(const PlanRow& row) const;
  ScoredToken Score(TokenId id, bool with_logprob, int32_t candidates) const;
  TokenId TokenAt(const SequenceSpec& spec, int32_t output_position) const;

  const int32_t vocab_size_;
  absl::flat_hash_map<SequenceId, SequenceSpec> sequences_;
  std::deque<BatchPlan> plans_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_NULL_RUNNER_H_
