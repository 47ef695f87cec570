// The engine against a fake model under random load: whatever happens to a
// request, its stream is the one it has alone, and the books balance.
#include <gtest/gtest.h>

#include <map>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "common/strings.h"
#include "tests/simulation/fake_model_runner.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/engine.h"

namespace caravan::worker {
namespace {

struct Scenario {
  std::string name;
  uint32_t seed = 1;
  int32_t depth = 1;
  int32_t block_count = 24;
  int32_t max_running = 6;
  int32_t max_step_tokens = 40;
  int32_t max_prefill_chunk = 16;
  int32_t max_prefill_tokens = 512;
  bool prefix_cache = true;
  int32_t unscaled_context_length = 0;
};

void PrintTo(const Scenario& value, std::ostream* out) { *out << value.name; }

constexpr int32_t kContext = 200;

// Checks what comes out of the engine against what was promised.
class StreamChecker final : public EngineSink {
 public:
  explicit StreamChecker(const FakeModelOptions& options) : options_(options) {}

  void Expect(const GroupRequest& request) {
    Expected expected;
    for (const ChoiceStart& choice : request.choices) {
      ExpectedChoice& added = expected.choices[choice.index];
      added.stream = FakeModelRunner::Alone(options_, request, choice);
      added.first = static_cast<int32_t>(choice.output.size());
      added.whole = added.first > 0 && added.stream.tokens.empty();
    }
    if (request.sampling.prompt_logprob_count) {
      expected.scores = FakeModelRunner::PromptScores(options_, request);
    }
    groups_[request.id] = std::move(expected);
  }
  // No event of the group may follow.
  void Forget(GroupId id) { groups_.erase(id); }
  // No event of the choice may follow.
  void Forget(GroupId id, int32_t choice) {
    Expected& group = groups_.at(id);
    group.choices.erase(choice);
    if (group.choices.empty()) groups_.erase(id);
  }

  void Emit(const StepReport& report) override {
    for (const PromptEvent& event : report.prompts) OnPrompt(event);
    for (const TokenEvent& event : report.tokens) OnToken(event);
    for (const FinishEvent& event : report.finishes) OnFinish(event);
    for (const ErrorEvent& event : report.errors) {
      EXPECT_EQ(ReasonOf(event.status), Reason::kDeadlineExceeded);
      ASSERT_EQ(groups_.erase(event.group), 1u);
      ++failed;
    }
    for (const kv::BlockHash& hash : report.kv_changes.removed) {
      EXPECT_EQ(hashes_.erase(hash), 1u);
    }
    for (const kv::BlockHash& hash : report.kv_changes.stored) {
      EXPECT_TRUE(hashes_.insert(hash).second);
    }
    counters.parked += report.counters.parked;
    counters.resumed += report.counters.resumed;
    counters.cached_tokens += report.counters.cached_tokens;
    counters.copied_blocks += report.counters.copied_blocks;
    counters.dropped_rows += report.counters.dropped_rows;
  }

  std::vector<GroupId> Alive() const {
    std::vector<GroupId> ids;
    for (const auto& [id, group] : groups_) ids.push_back(id);
    return ids;
  }
  std::vector<int32_t> AliveChoices(GroupId id) const {
    std::vector<int32_t> indices;
    for (const auto& [index, choice] : groups_.at(id).choices) {
      indices.push_back(index);
    }
    return indices;
  }
  bool IsAlive(GroupId id) const { return groups_.contains(id); }
  const absl::flat_hash_set<kv::BlockHash>& hashes() const { return hashes_; }

  StepCounters counters;
  int finished = 0;
  int failed = 0;

 private:
  struct ExpectedChoice {
    ReferenceStream stream;
    int32_t first = 0;
    size_t got = 0;
    // It had ended when it was submitted: nothing is computed for it, scores
    // of the prompt neither.
    bool whole = false;
  };
  struct Expected {
    std::map<int32_t, ExpectedChoice> choices;
    std::vector<ScoredToken> scores;
    size_t scored = 0;
  };

  void OnPrompt(const PromptEvent& event) {
    ASSERT_TRUE(groups_.contains(event.group)) << event.group;
    Expected& group = groups_[event.group];
    if (event.scores.empty()) return;
    ASSERT_EQ(event.first_scored_position, static_cast<int>(group.scored) + 1);
    for (const ScoredToken& score : event.scores) {
      ASSERT_LT(group.scored, group.scores.size());
      ASSERT_EQ(score, group.scores[group.scored++]);
    }
  }

  void OnToken(const TokenEvent& event) {
    ASSERT_TRUE(groups_.contains(event.group)) << event.group;
    Expected& group = groups_[event.group];
    ASSERT_TRUE(group.choices.contains(event.choice));
    ExpectedChoice& choice = group.choices[event.choice];
    EXPECT_EQ(event.position, choice.first + static_cast<int>(choice.got));
    ASSERT_LT(choice.got, choice.stream.tokens.size());
    EXPECT_EQ(event.token, choice.stream.tokens[choice.got++])
        << "group " << event.group << " choice " << event.choice;
  }

  void OnFinish(const FinishEvent& event) {
    ASSERT_TRUE(groups_.contains(event.group)) << event.group;
    Expected& group = groups_[event.group];
    ASSERT_TRUE(group.choices.contains(event.choice));
    const ExpectedChoice& choice = group.choices[event.choice];
    EXPECT_EQ(choice.got, choice.stream.tokens.size());
    EXPECT_EQ(event.end, choice.stream.end);
    EXPECT_EQ(event.stop_token_id.has_value(), event.end == ChoiceEnd::kStop);
    EXPECT_EQ(event.output_token_count,
              choice.first + static_cast<int>(choice.got));
    if (!choice.whole) {
      EXPECT_EQ(group.scored, group.scores.size());
    }
    ++finished;
    Forget(event.group, event.choice);
  }

  const FakeModelOptions options_;
  std::map<GroupId, Expected> groups_;
  absl::flat_hash_set<kv::BlockHash> hashes_;
};

class Simulation {
 public:
  explicit Simulation(const Scenario& scenario)
      : scenario_(scenario),
        random_(scenario.seed),
        model_{.block_count = scenario.block_count,
               .context_length = kContext,
               .unscaled_context_length = scenario.unscaled_context_length},
        runner_(model_),
        checker_(model_) {
    EngineOptions options;
    options.block_count = scenario.block_count;
    options.max_running = scenario.max_running;
    options.max_step_tokens = scenario.max_step_tokens;
    options.max_prefill_chunk = scenario.max_prefill_chunk;
    options.max_prefill_tokens = scenario.max_prefill_tokens;
    options.max_waiting = 40;
    options.context_length = kContext;
    options.depth = scenario.depth;
    options.prefix_cache = scenario.prefix_cache;
    options.unscaled_context_length = scenario.unscaled_context_length;
    engine_ = *Engine::Create(options, &runner_, &checker_, &clock_);
  }

  void Run(int steps) {
    for (int step = 0; step < steps && !::testing::Test::HasFailure(); ++step) {
      SCOPED_TRACE(StrCat("seed ", scenario_.seed, " step ", step));
      if (Chance(0.35)) SubmitOne();
      if (Chance(0.04)) CancelOne();
      if (Chance(0.02)) CancelChoices();
      clock_.Advance(absl::Milliseconds(Below(20)));
      StepAndCheck();
    }
    // Nothing new comes: all must end.
    for (int step = 0; step < 20000 && !engine_->Drained(); ++step) {
      SCOPED_TRACE(StrCat("seed ", scenario_.seed, " draining step ", step));
      StepAndCheck();
      if (::testing::Test::HasFailure()) return;
    }
    ASSERT_TRUE(engine_->Drained());
    StepAndCheck();
    EXPECT_TRUE(checker_.Alive().empty());
    EXPECT_EQ(engine_->load().leased_blocks, 0);
    EXPECT_EQ(runner_.in_flight(), 0);
    EXPECT_EQ(runner_.known_sequences(), 0);
  }

  const StreamChecker& checker() const { return checker_; }
  const FakeModelRunner& runner() const { return runner_; }
  int submitted() const { return submitted_; }
  int cancelled_choices() const { return cancelled_choices_; }

 private:
  uint32_t Below(uint32_t limit) { return random_() % limit; }
  bool Chance(double p) { return random_() < p * 4294967296.0; }

  // One of a few families, so that prompts share prefixes.
  std::vector<TokenId> RandomPrompt() {
    const uint32_t family = Below(4);
    const uint32_t shared = 16 * Below(6) + (Chance(0.3) ? Below(16) : 0);
    const uint32_t own = Chance(0.2) ? 0 : Below(40);
    std::mt19937 text(family);
    std::vector<TokenId> prompt;
    for (uint32_t i = 0; i < shared; ++i) prompt.push_back(text() % 50);
    for (uint32_t i = 0; i < own; ++i) prompt.push_back(Below(50));
    if (prompt.empty()) prompt.push_back(1);
    return prompt;
  }

  GroupRequest RandomRequest() {
    GroupRequest request;
    request.id = next_id_++;
    request.priority = static_cast<int32_t>(Below(3)) - 1;
    request.over_share = request.id % 3 == 0;
    request.prompt =
        std::make_shared<const std::vector<TokenId>>(RandomPrompt());
    request.sampling.seed = random_();
    request.sampling.temperature = Chance(0.3) ? 0 : 1;
    if (Chance(0.5)) request.sampling.logprob_count = 0;
    if (Chance(0.15)) request.sampling.prompt_logprob_count = 0;
    request.stop.max_tokens = Chance(0.05) ? 0 : static_cast<int>(Below(60));
    if (Chance(0.5)) {
      request.end_ids = {static_cast<TokenId>(Below(50))};
      request.stop.min_tokens = Below(std::max(1, request.stop.max_tokens / 2));
    }
    if (Chance(0.1)) {
      request.deadline = clock_.Now() + absl::Milliseconds(Below(2000));
    }
    if (Chance(0.2)) request.tenant_salt = "tenant";
    const int32_t n = Chance(0.3) ? 1 + static_cast<int>(Below(4)) : 1;
    for (int32_t i = 0; i < n; ++i)
      request.choices.push_back({.index = i, .output = {}});
    return request;
  }

  // Lets some choices continue what they would have produced.
  void ResumeSome(GroupRequest& request) {
    for (ChoiceStart& choice : request.choices) {
      const ReferenceStream stream =
          FakeModelRunner::Alone(model_, request, choice);
      const size_t keep = Below(stream.tokens.size() + 1);
      for (size_t i = 0; i < keep; ++i) {
        choice.output.push_back(stream.tokens[i].token_id);
      }
    }
  }

  void SubmitOne() {
    GroupRequest request = RandomRequest();
    if (Chance(0.2)) ResumeSome(request);
    checker_.Expect(request);
    const GroupId id = request.id;
    const absl::Status status = engine_->Submit(std::move(request));
    if (status.ok()) {
      ++submitted_;
    } else {
      EXPECT_EQ(ReasonOf(status), Reason::kQueueFull) << status;
      checker_.Forget(id);
    }
    if (Chance(0.03)) {  // before the engine has seen it
      engine_->Cancel(id);
      checker_.Forget(id);
    }
    if (Chance(0.05)) CancelChoicesOf(id);
  }

  // Of a group with several, if there is one.
  void CancelChoices() {
    std::vector<GroupId> several;
    for (const GroupId id : checker_.Alive()) {
      if (checker_.AliveChoices(id).size() > 1) several.push_back(id);
    }
    if (several.empty()) return;
    CancelChoicesOf(several[Below(static_cast<uint32_t>(several.size()))]);
  }

  // Some or all of them, and one that there is not.
  void CancelChoicesOf(GroupId id) {
    if (!checker_.IsAlive(id)) return;
    std::vector<int32_t> cancelled;
    for (const int32_t choice : checker_.AliveChoices(id)) {
      if (!cancelled.empty() && Chance(0.7)) continue;
      if (cancelled.empty() && Chance(0.3)) continue;
      cancelled.push_back(choice);
    }
    for (const int32_t choice : cancelled) checker_.Forget(id, choice);
    cancelled_choices_ += static_cast<int>(cancelled.size());
    if (!cancelled.empty()) cancelled.push_back(99);
    engine_->CancelChoices(id, std::move(cancelled));
  }

  void CancelOne() {
    const std::vector<GroupId> alive = checker_.Alive();
    if (alive.empty()) return;
    const GroupId id = alive[Below(static_cast<uint32_t>(alive.size()))];
    engine_->Cancel(id);
    checker_.Forget(id);
  }

  void StepAndCheck() {
    ASSERT_OK_AND_ASSIGN(const StepReport report, engine_->Step());
    ASSERT_OK(engine_->Audit());
    ASSERT_TRUE(runner_.violations().empty()) << runner_.violations().front();
    const EngineLoad& load = report.load;
    ASSERT_EQ(load.free_blocks + load.leased_blocks + load.cached_blocks,
              scenario_.block_count);
    ASSERT_LE(load.running_sequences, scenario_.max_running);
    for (const BatchPlan& plan : runner_.plans()) {
      ASSERT_LE(plan.token_count(), scenario_.max_step_tokens);
      for (const PlanRow& row : plan.rows) {
        ASSERT_LE(static_cast<int>(row.tokens.size()),
                  scenario_.max_prefill_chunk);
      }
    }
    runner_.ClearPlans();
    const std::vector<kv::BlockHash> hashes = engine_->CachedHashes();
    ASSERT_EQ(checker_.hashes(),
              absl::flat_hash_set<kv::BlockHash>(hashes.begin(), hashes.end()));
  }

  const Scenario scenario_;
  std::mt19937 random_;
  const FakeModelOptions model_;
  testing::ManualClock clock_;
  FakeModelRunner runner_;
  StreamChecker checker_;
  std::unique_ptr<Engine> engine_;
  GroupId next_id_ = 1;
  int submitted_ = 0;
  int cancelled_choices_ = 0;
};

class EngineSimulationTest : public ::testing::TestWithParam<Scenario> {};

TEST_P(EngineSimulationTest, EveryStreamIsTheOneItHasAlone) {
  // Other seeds by --gtest_random_seed.
  Scenario scenario = GetParam();
  scenario.seed += 1000 * static_cast<uint32_t>(GTEST_FLAG_GET(random_seed));
  SCOPED_TRACE(StrCat("seed ", scenario.seed));
  Simulation simulation(scenario);
  simulation.Run(/*steps=*/3000);
  // What the scenario is there for did happen.
  const StreamChecker& checker = simulation.checker();
  EXPECT_GT(checker.finished, 100) << simulation.submitted();
  EXPECT_GT(checker.failed, 0);
  EXPECT_GT(simulation.cancelled_choices(), 10);
  EXPECT_GT(checker.counters.parked, 5);
  EXPECT_GT(checker.counters.resumed, 5);
  EXPECT_GT(checker.counters.copied_blocks, 0);
  if (GetParam().prefix_cache) {
    EXPECT_GT(checker.counters.cached_tokens, 500);
  }
  if (GetParam().depth > 1) {
    EXPECT_GT(checker.counters.dropped_rows, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Scenarios, EngineSimulationTest,
    ::testing::Values(
        Scenario{.name = "Plain"},
        Scenario{.name = "DepthTwo", .seed = 2, .depth = 2},
        Scenario{.name = "DepthThree", .seed = 3, .depth = 3},
        Scenario{.name = "OneTokenChunks",
                 .seed = 4,
                 .depth = 2,
                 .max_step_tokens = 7,
                 .max_prefill_chunk = 1},
        Scenario{.name = "PromptsShareAFewTokens",
                 .seed = 9,
                 .depth = 2,
                 .max_prefill_tokens = 5},
        Scenario{.name = "NoPrefixCache", .seed = 5, .prefix_cache = false},
        Scenario{.name = "FewBlocks",
                 .seed = 6,
                 .depth = 3,
                 .block_count = 13,
                 .max_running = 12},
        Scenario{.name = "LengthMatters",
                 .seed = 7,
                 .depth = 2,
                 .unscaled_context_length = 50},
        Scenario{.name = "BigSteps",
                 .seed = 8,
                 .block_count = 40,
                 .max_running = 32,
                 .max_step_tokens = 1000,
                 .max_prefill_chunk = 1000,
                 .max_prefill_tokens = 1000}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace caravan::worker
