// A ModelRunner without a model: tokens are hashes of what a real model's
// would depend on, and its KV storage remembers for each slot which prefix was
// written there, so that every mistake in the books of the blocks is seen.
#ifndef CARAVAN_TESTS_SIMULATION_FAKE_MODEL_RUNNER_H_
#define CARAVAN_TESTS_SIMULATION_FAKE_MODEL_RUNNER_H_

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "worker/engine/engine.h"
#include "worker/engine/model_runner.h"

namespace caravan::worker {

// What a request gives when it runs alone.
struct ReferenceStream {
  std::vector<ScoredToken> tokens;  // resumed ones not included
  ChoiceEnd end = ChoiceEnd::kLength;
};

struct FakeModelOptions {
  int32_t block_count = 16;
  int32_t vocabulary_size = 50;
  int32_t context_length = 256;
  int32_t unscaled_context_length = 0;
};

// Not thread-safe.
class FakeModelRunner final : public ModelRunner {
 public:
  explicit FakeModelRunner(const FakeModelOptions& options)
      : options_(options), storage_(options.block_count) {}

  void AddSequence(SequenceSpec spec) override;
  void DropSequence(SequenceId id) override;
  absl::Status Launch(BatchPlan plan) override;
  absl::StatusOr<StepResult> Collect() override;
  int in_flight() const override { return in_flight_; }

  // The next call of Collect fails.
  void FailNextCollect() { fail_collect_ = true; }
  // Rows that sample for prompts that begin with this token have a NaN.
  void PoisonPrompts(TokenId first) { poison_ = first; }

  // Promises that the engine broke, in words.
  const std::vector<std::string>& violations() const { return violations_; }
  // Plans in the order of their launch.
  const std::vector<BatchPlan>& plans() const { return plans_; }
  void ClearPlans() { plans_.clear(); }
  // Sequences that were added and not dropped.
  int known_sequences();

  // The stream of a choice, computed without steps or blocks.
  static ReferenceStream Alone(const FakeModelOptions& options,
                               const GroupRequest& request,
                               const ChoiceStart& choice);
  // Scores of the prompt's positions from 1 on.
  static std::vector<ScoredToken> PromptScores(const FakeModelOptions& options,
                                               const GroupRequest& request);

 private:
  struct FakeSequence {
    SequenceSpec spec;
    std::vector<TokenId> ids;      // prompt and output
    std::vector<uint64_t> prefix;  // of the same size: hash up to there
    uint64_t last = 0;             // the last one, or of the empty prefix
    void Append(TokenId id);
  };
  using Command = std::variant<SequenceSpec, SequenceId, BatchPlan>;

  static FakeSequence Start(const FakeModelOptions& options, SequenceSpec spec);
  static ScoredToken Sample(const FakeModelOptions& options,
                            const FakeSequence& sequence,
                            int32_t output_position);
  static ScoredToken ScorePrompt(const FakeSequence& sequence,
                                 int32_t position);

  void CheckLaunch(const BatchPlan& plan);
  void ApplyUntilPlan();
  StepResult Execute(const BatchPlan& plan);
  void CheckRow(const PlanRow& row);
  void Store(const PlanRow& row);
  RowResult Compute(const PlanRow& row);
  void Violate(std::string what);

  const FakeModelOptions options_;
  std::deque<Command> commands_;
  int in_flight_ = 0;
  std::set<SequenceId> sampling_;  // in launched plans
  bool fail_collect_ = false;
  TokenId poison_ = -1;

  std::map<SequenceId, FakeSequence> sequences_;
  std::vector<std::array<uint64_t, 16>> storage_;
  std::set<std::pair<BlockId, int32_t>> written_;  // in the current plan
  std::vector<std::string> violations_;
  std::vector<BatchPlan> plans_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_TESTS_SIMULATION_FAKE_MODEL_RUNNER_H_
