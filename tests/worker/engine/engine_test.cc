#include "worker/engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <vector>

#include "tests/worker/engine/engine_fixture.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::HasReason;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class EngineTest : public EngineFixture {};

TEST_F(EngineTest, ARequestGivesItsStreamAndFinishesOnce) {
  Start();
  const GroupRequest request = Request(1, Prompt(20), 10);
  ASSERT_OK(engine_->Submit(request));
  EXPECT_FALSE(engine_->Drained());
  StepUntilIdle();
  EXPECT_EQ(Tokens(1), Alone(request));
  ASSERT_THAT(Finishes(), SizeIs(1));
  EXPECT_EQ(Finishes()[0].end, ChoiceEnd::kLength);
  EXPECT_EQ(Finishes()[0].output_token_count, 10);
  EXPECT_FALSE(Finishes()[0].stop_token_id.has_value());
  ASSERT_THAT(Prompts(), SizeIs(1));
  EXPECT_EQ(Prompts()[0].cached_token_count, 0);
  EXPECT_TRUE(engine_->Drained());
  EXPECT_EQ(engine_->load().leased_blocks, 0);
  EXPECT_EQ(runner_->known_sequences(), 0);
  EXPECT_EQ(Sum(&StepCounters::prefill_tokens), 20);
  EXPECT_EQ(Sum(&StepCounters::decode_tokens), 9);
}

TEST_F(EngineTest, APromptIsPrefilledInChunks) {
  options_.max_prefill_chunk = 16;
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(50), 1)));
  StepUntilIdle();
  EXPECT_EQ(Sum(&StepCounters::prefill_rows), 4);
  ASSERT_THAT(runner_->plans(), SizeIs(4));
  EXPECT_EQ(runner_->plans()[3].rows[0].first_position, 48);
  EXPECT_THAT(runner_->plans()[3].rows[0].tokens, SizeIs(2));
  EXPECT_FALSE(runner_->plans()[2].rows[0].sample);
  EXPECT_TRUE(runner_->plans()[3].rows[0].sample);
}

TEST_F(EngineTest, DecodeTokensComeBeforePrefillChunks) {
  options_.max_step_tokens = 8;
  Start();
  for (GroupId id : {1, 2, 3}) {
    ASSERT_OK(engine_->Submit(Request(id, Prompt(2, id), 40)));
  }
  Step();
  ASSERT_OK(engine_->Submit(Request(4, Prompt(50, 4), 1)));
  for (int i = 0; i < 5; ++i) {
    const StepReport report = Step();
    EXPECT_EQ(report.counters.decode_tokens, 3);
    EXPECT_EQ(report.counters.prefill_tokens, 5);
  }
}

TEST_F(EngineTest, PromptsTakeTurnsAndRunningDecodesNeverWaitForTwoChunks) {
  options_.block_count = 64;
  options_.max_prefill_tokens = 32;
  Start();
  for (GroupId id = 1; id <= 8; ++id) {
    ASSERT_OK(engine_->Submit(Request(id, Prompt(32, id), 20)));
  }
  StepUntilIdle();
  for (size_t step = 0; step < log_.reports.size(); ++step) {
    const StepCounters& counters = log_.reports[step].counters;
    EXPECT_LE(counters.prefill_tokens, 32);
    // Every prompt that has been prefilled gets a token in each step.
    if (step < 8) {
      EXPECT_EQ(counters.decode_tokens, step);
      ASSERT_THAT(log_.reports[step].tokens, SizeIs(step + 1));
      EXPECT_EQ(log_.reports[step].prompts.size(), 1u);
    }
  }
  EXPECT_THAT(Finishes(), SizeIs(8));
}

// Steps take the time of their tokens, as where prompts are bound by
// arithmetic, and 10 tokens' time besides; bounds are the worker's on a CPU.
TEST_F(EngineTest, EightPromptsAtOnceHaveTheirFirstTokensInTurn) {
  options_.block_count = 256;
  options_.context_length = 400;
  options_.max_step_tokens = 512;
  options_.max_prefill_chunk = 128;
  options_.max_prefill_tokens = 128;
  Start();
  for (const GroupId running : {101, 102}) {
    ASSERT_OK(engine_->Submit(
        Request(running, Prompt(16, static_cast<int>(running)), 60)));
  }
  Step();
  for (GroupId id = 1; id <= 8; ++id) {
    ASSERT_OK(engine_->Submit(Request(id, Prompt(128, id), 4)));
  }
  double now = 0;
  std::map<GroupId, double> first;
  while (first.size() < 8) {
    const StepReport report = Step();
    ASSERT_FALSE(report.idle);
    const StepCounters& counters = report.counters;
    now += 10 + counters.prefill_tokens + counters.decode_tokens;
    // Nobody who decodes waits for more than one chunk.
    EXPECT_LE(counters.prefill_tokens, options_.max_prefill_chunk);
    int running = 0;
    for (const TokenEvent& event : report.tokens) {
      if (event.group > 8) {
        ++running;
      } else {
        first.emplace(event.group, now);
      }
    }
    EXPECT_EQ(running, 2);
  }
  std::vector<double> times;
  for (const auto& [id, time] : first) times.push_back(time);
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
  const double median = (times[3] + times[4]) / 2;
  std::cout << "median time to the first token: " << median / times[7]
            << " of the last one's\n";
  EXPECT_LE(median, 0.65 * times[7]);
}

TEST_F(EngineTest, WhoWaitsIsToldSoAndToldAgainBeforeItsFirstStep) {
  options_.max_running = 2;
  Start();
  for (GroupId id : {1, 2, 3, 4}) {
    ASSERT_OK(engine_->Submit(Request(id, Prompt(2, id), id == 1 ? 2 : 8)));
  }
  Step();
  EXPECT_EQ(log_.queued, (std::vector<GroupId>{3, 4}));
  EXPECT_THAT(log_.started, IsEmpty());
  Step();  // 1 ends
  Step();
  EXPECT_EQ(log_.started, (std::vector<GroupId>{3}));
  ASSERT_OK(engine_->Submit(Request(5, Prompt(2, 5), 1)));
  StepUntilIdle();
  EXPECT_EQ(log_.queued, (std::vector<GroupId>{3, 4, 5}));
  EXPECT_EQ(log_.started, (std::vector<GroupId>{3, 4, 5}));
}

TEST_F(EngineTest, HigherPrioritiesAreAdmittedFirstElseFirstCome) {
  options_.max_running = 1;
  Start();
  for (GroupId id : {1, 2, 3, 4}) {
    GroupRequest request = Request(id, Prompt(2, id), 2);
    request.priority = id >= 3 ? 5 : 0;
    ASSERT_OK(engine_->Submit(request));
  }
  StepUntilIdle();
  std::vector<GroupId> order;
  for (const FinishEvent& finish : Finishes()) order.push_back(finish.group);
  EXPECT_EQ(order, (std::vector<GroupId>{3, 4, 1, 2}));
}

TEST_F(EngineTest, AHigherPriorityParksALowerOneThatThenGoesOn) {
  options_.block_count = 6;
  Start();
  const GroupRequest low = Request(1, Prompt(60, 1), 30);
  GroupRequest high = Request(2, Prompt(70, 2), 10);
  high.priority = 1;
  ASSERT_OK(engine_->Submit(low));
  Step();
  Step();
  Step();
  ASSERT_OK(engine_->Submit(high));
  const StepReport report = Step();
  EXPECT_EQ(report.counters.parked, 1);
  EXPECT_EQ(report.load.parked_sequences, 1);
  ASSERT_THAT(runner_->plans().back().rows, SizeIs(1));
  StepUntilIdle();
  EXPECT_EQ(Finishes()[0].group, 2u);
  EXPECT_EQ(Tokens(1), Alone(low));
  EXPECT_EQ(Tokens(2), Alone(high));
  EXPECT_EQ(Sum(&StepCounters::resumed), 1);
  EXPECT_EQ(runner_->known_sequences(), 0);
}

TEST_F(EngineTest, AHigherPriorityTakesARunningPlace) {
  options_.max_running = 2;
  Start();
  const GroupRequest a = Request(1, Prompt(5, 1), 20);
  const GroupRequest b = Request(2, Prompt(5, 2), 20);
  GroupRequest high = Request(3, Prompt(5, 3), 5);
  high.priority = 1;
  ASSERT_OK(engine_->Submit(a));
  ASSERT_OK(engine_->Submit(b));
  Step();
  ASSERT_OK(engine_->Submit(high));
  const StepReport report = Step();
  EXPECT_EQ(report.counters.admitted, 1);
  EXPECT_EQ(report.counters.parked, 1);
  StepUntilIdle();
  EXPECT_EQ(Finishes()[0].group, 3u);
  EXPECT_EQ(Tokens(1), Alone(a));
  EXPECT_EQ(Tokens(2), Alone(b));
}

TEST_F(EngineTest, TheOlderParksTheYoungerWhenBlocksRunOut) {
  options_.block_count = 6;
  options_.prefix_cache = false;
  Start();
  const GroupRequest older = Request(1, Prompt(30, 1), 60);
  const GroupRequest younger = Request(2, Prompt(30, 2), 60);
  ASSERT_OK(engine_->Submit(older));
  ASSERT_OK(engine_->Submit(younger));
  StepUntilIdle();
  EXPECT_GE(Sum(&StepCounters::parked), 1);
  EXPECT_EQ(Sum(&StepCounters::parked), Sum(&StepCounters::resumed));
  EXPECT_EQ(Finishes()[0].group, 1u);
  EXPECT_EQ(Tokens(1), Alone(older));
  EXPECT_EQ(Tokens(2), Alone(younger));
}

TEST_F(EngineTest, AdmissionLeavesRoomForWhoRuns) {
  options_.block_count = 5;
  Start();
  // Two blocks now, three soon; the second would need the last two.
  ASSERT_OK(engine_->Submit(Request(1, Prompt(31, 1), 10)));
  ASSERT_OK(engine_->Submit(Request(2, Prompt(31, 2), 10)));
  StepUntilIdle();
  EXPECT_EQ(Sum(&StepCounters::parked), 0);
  ASSERT_THAT(Finishes(), SizeIs(2));
}

TEST_F(EngineTest, APrefixHitSkipsWhatStands) {
  Start();
  std::vector<TokenId> longer = Prompt(40);
  longer[35] = 49;
  ASSERT_OK(engine_->Submit(Request(1, Prompt(40), 4)));
  StepUntilIdle();
  EXPECT_EQ(engine_->load().cached_blocks, 2);
  EXPECT_THAT(engine_->CachedHashes(), SizeIs(2));
  log_.reports.clear();
  const GroupRequest request = Request(2, longer, 4);
  ASSERT_OK(engine_->Submit(request));
  StepUntilIdle();
  EXPECT_EQ(Prompts()[0].cached_token_count, 32);
  EXPECT_EQ(Sum(&StepCounters::cached_tokens), 32);
  EXPECT_EQ(Sum(&StepCounters::prefill_tokens), 8);
  EXPECT_EQ(Tokens(2), Alone(request));
}

TEST_F(EngineTest, BlocksOfWhoStillRunsAreFound) {
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(32), 50)));
  Step();
  const GroupRequest second = Request(2, Prompt(40), 4);
  ASSERT_OK(engine_->Submit(second));
  const StepReport report = Step();
  EXPECT_EQ(report.counters.cached_tokens, 32);
  EXPECT_EQ(report.counters.prefill_tokens, 8);
  StepUntilIdle();
  EXPECT_EQ(Tokens(2), Alone(second));
}

TEST_F(EngineTest, AWhollyCachedPromptRecomputesItsLastTokenAndWritesNothing) {
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(32), 1)));
  StepUntilIdle();
  runner_->ClearPlans();
  const GroupRequest request = Request(2, Prompt(32), 3);
  ASSERT_OK(engine_->Submit(request));
  StepUntilIdle();
  const PlanRow& row = runner_->plans()[0].rows[0];
  EXPECT_EQ(row.first_position, 31);
  EXPECT_THAT(row.tokens, SizeIs(1));
  EXPECT_EQ(row.first_stored_position, 32);
  EXPECT_TRUE(row.sample);
  EXPECT_EQ(Tokens(2), Alone(request));
}

TEST_F(EngineTest, AnotherTenantFindsNothing) {
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(32), 1)));
  StepUntilIdle();
  log_.reports.clear();
  GroupRequest request = Request(2, Prompt(32), 1);
  request.tenant_salt = "other";
  ASSERT_OK(engine_->Submit(request));
  StepUntilIdle();
  EXPECT_EQ(Sum(&StepCounters::cached_tokens), 0);
}

TEST_F(EngineTest, PromptScoringBypassesTheHit) {
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(40), 1)));
  StepUntilIdle();
  log_.reports.clear();
  GroupRequest request = Request(2, Prompt(40), 2, /*n=*/2);
  request.sampling.prompt_logprob_count = 0;
  ASSERT_OK(engine_->Submit(request));
  StepUntilIdle();
  std::vector<ScoredToken> scores;
  for (const PromptEvent& event : Prompts()) {
    EXPECT_EQ(event.first_scored_position, static_cast<int>(scores.size()) + 1);
    scores.insert(scores.end(), event.scores.begin(), event.scores.end());
  }
  EXPECT_EQ(scores, FakeModelRunner::PromptScores(model_, request));
  EXPECT_EQ(Tokens(2, 1), Alone(request, 1));
}

TEST_F(EngineTest, ChoicesShareFullBlocksAndCopyThePartialOne) {
  Start();
  const GroupRequest request = Request(1, Prompt(40), 5, /*n=*/3);
  ASSERT_OK(engine_->Submit(request));
  Step();  // the first choice computes 32 tokens of the prompt,
  Step();  // then the last 8,
  const StepReport report = Step();  // then the others start.
  EXPECT_EQ(report.counters.copied_blocks, 2);
  EXPECT_EQ(report.load.leased_blocks, 5);
  EXPECT_EQ(runner_->plans().back().copies.size(), 2u);
  StepUntilIdle();
  for (int choice : {0, 1, 2}) {
    EXPECT_EQ(Tokens(1, choice), Alone(request, choice));
  }
  EXPECT_EQ(Sum(&StepCounters::prefill_tokens), 42);
  EXPECT_THAT(Finishes(), SizeIs(3));
  EXPECT_THAT(Prompts(), SizeIs(1));
}

TEST_F(EngineTest, ChoicesOfAPromptOfFullBlocksCopyNothing) {
  Start();
  const GroupRequest request = Request(1, Prompt(32), 5, /*n=*/2);
  ASSERT_OK(engine_->Submit(request));
  StepUntilIdle();
  EXPECT_EQ(Sum(&StepCounters::copied_blocks), 0);
  EXPECT_EQ(Tokens(1, 1), Alone(request, 1));
}

TEST_F(EngineTest, MaxTokensZeroOnlyScores) {
  Start();
  GroupRequest request = Request(1, Prompt(40), 0, /*n=*/2);
  request.sampling.prompt_logprob_count = 0;
  ASSERT_OK(engine_->Submit(request));
  StepUntilIdle();
  EXPECT_THAT(Tokens(1), IsEmpty());
  ASSERT_THAT(Finishes(), SizeIs(2));
  EXPECT_EQ(Finishes()[0].end, ChoiceEnd::kLength);
  EXPECT_EQ(Finishes()[0].output_token_count, 0);
  EXPECT_EQ(Sum(&StepCounters::prefill_tokens), 40);
  int scores = 0;
  for (const PromptEvent& event : Prompts()) scores += event.scores.size();
  EXPECT_EQ(scores, 39);
}

TEST_F(EngineTest, AnEndTokenStopsTheChoiceAndIsItsLastToken) {
  Start();
  GroupRequest request = Request(1, Prompt(10), 40);
  const TokenId end = Alone(request)[6];
  request.end_ids = {end};
  const std::vector<TokenId> expected = Alone(request);
  ASSERT_LE(expected.size(), 7u);
  ASSERT_OK(engine_->Submit(request));
  StepUntilIdle();
  EXPECT_EQ(Tokens(1), expected);
  EXPECT_EQ(Finishes()[0].end, ChoiceEnd::kStop);
  EXPECT_EQ(Finishes()[0].stop_token_id, end);
}

TEST_F(EngineTest, EndTokensDoNotStopBeforeMinTokens) {
  Start();
  GroupRequest request = Request(1, Prompt(10), 40);
  for (TokenId id = 0; id < 25; ++id) request.end_ids.push_back(id);
  request.stop.min_tokens = 12;
  ASSERT_OK(engine_->Submit(request));
  StepUntilIdle();
  EXPECT_GE(Finishes()[0].output_token_count, 13);
  EXPECT_EQ(Tokens(1), Alone(request));
}

TEST_F(EngineTest, TheContextsEndIsLength) {
  Start();
  const GroupRequest request = Request(1, Prompt(190), 40);
  ASSERT_OK(engine_->Submit(request));
  StepUntilIdle();
  EXPECT_EQ(Finishes()[0].end, ChoiceEnd::kLength);
  EXPECT_EQ(Finishes()[0].output_token_count, 10);
}

TEST_F(EngineTest, ADeadlineEndsItsGroupOnly) {
  Start();
  GroupRequest request = Request(1, Prompt(10), 100);
  request.deadline = clock_.Now() + absl::Seconds(1);
  const GroupRequest other = Request(2, Prompt(10, 2), 20);
  ASSERT_OK(engine_->Submit(request));
  ASSERT_OK(engine_->Submit(other));
  Step();
  clock_.Advance(absl::Seconds(1));
  StepUntilIdle();
  ASSERT_THAT(Errors(), SizeIs(1));
  EXPECT_EQ(Errors()[0].group, 1u);
  EXPECT_THAT(Errors()[0].status, HasReason(Reason::kDeadlineExceeded));
  EXPECT_THAT(Tokens(1), SizeIs(1));
  EXPECT_EQ(Tokens(2), Alone(other));
}

TEST_F(EngineTest, ADeadlineAlsoEndsWhoWaits) {
  options_.max_running = 1;
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(10), 20)));
  GroupRequest request = Request(2, Prompt(10, 2), 20);
  request.deadline = clock_.Now() + absl::Seconds(1);
  ASSERT_OK(engine_->Submit(request));
  Step();
  clock_.Advance(absl::Seconds(2));
  const StepReport report = Step();
  ASSERT_THAT(report.errors, SizeIs(1));
  EXPECT_EQ(report.errors[0].group, 2u);
}

// Every stage of a pipeline has a plan to compute, and nobody waits for good.
TEST_F(EngineTest, RunningDecodesAreSpreadOverTheMicroBatches) {
  for (const int stages : {2, 3}) {
    options_.micro_batches = stages;
    options_.depth = stages + 1;
    options_.prefix_cache = false;
    log_.reports.clear();
    Start();
    std::vector<GroupRequest> requests;
    for (GroupId id = 1; id <= 7; ++id) {
      requests.push_back(Request(id, Prompt(4, static_cast<int>(id)), 12));
      ASSERT_OK(engine_->Submit(requests.back()));
    }
    StepUntilIdle();
    int32_t most = 0;
    for (const StepReport& report : log_.reports) {
      most = std::max(most, report.counters.decode_tokens);
    }
    EXPECT_EQ(most, (7 + stages - 1) / stages);
    for (const GroupRequest& request : requests) {
      EXPECT_EQ(Tokens(request.id), Alone(request));
    }
  }
}

// Sequences that came one by one decode in plans of their own at first; these
// become as few and as full as the stages need.
TEST_F(EngineTest, PlansOfDecodesJoinWhenThereAreMoreThanMicroBatches) {
  options_.micro_batches = 2;
  options_.depth = 3;
  options_.max_step_tokens = 8;  // one prompt in each plan
  options_.max_prefill_chunk = 8;
  options_.prefix_cache = false;
  Start();
  for (GroupId id = 1; id <= 3; ++id) {
    ASSERT_OK(
        engine_->Submit(Request(id, Prompt(8, static_cast<int>(id)), 40)));
  }
  StepUntilIdle();
  // Of three, two and one in turn: never three plans of one.
  int32_t pairs = 0;
  for (const StepReport& report : log_.reports) {
    pairs += report.counters.decode_tokens == 2;
  }
  EXPECT_GE(pairs, 30);
}

// One plan at a time has all of them, or some would never have their turn.
TEST_F(EngineTest, MicroBatchesAreAsManyAsPlansInFlight) {
  options_.micro_batches = 4;
  options_.depth = 1;
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(4), 12, /*n=*/4)));
  StepUntilIdle();
  for (int choice = 0; choice < 4; ++choice) {
    EXPECT_THAT(Tokens(1, choice), SizeIs(12));
  }
  EXPECT_LT(log_.reports.size(), 20u);
}

TEST_F(EngineTest, CancelFreesBlocksWithinOneStep) {
  for (const int depth : {1, 2, 3}) {
    options_.depth = depth;
    options_.max_prefill_chunk = 8;
    options_.prefix_cache = false;
    log_.reports.clear();
    Start();
    ASSERT_OK(engine_->Submit(Request(1, Prompt(60), 20)));
    ASSERT_OK(engine_->Submit(Request(2, Prompt(4, 3), 30)));
    Step();
    Step();
    engine_->Cancel(1);
    const size_t before = log_.reports.size();
    // Rows of it that were launched before the cancel run out first.
    for (int i = 0; i < depth; ++i) Step();
    EXPECT_EQ(engine_->load().leased_blocks, 1) << depth;
    StepUntilIdle();
    for (size_t i = before; i < log_.reports.size(); ++i) {
      for (const TokenEvent& event : log_.reports[i].tokens) {
        EXPECT_EQ(event.group, 2u);
      }
      EXPECT_THAT(log_.reports[i].errors, IsEmpty());
    }
    EXPECT_EQ(runner_->known_sequences(), 0);
  }
}

TEST_F(EngineTest, ACancelledChoiceFreesItsBlocksAndItsSiblingsGoOn) {
  for (const int depth : {1, 2, 3}) {
    options_.depth = depth;
    options_.prefix_cache = false;
    log_.reports.clear();
    Start();
    const GroupRequest request = Request(1, Prompt(20), 30, /*n=*/3);
    ASSERT_OK(engine_->Submit(request));
    while (Tokens(1, 2).size() < 3) Step();
    const size_t got = Tokens(1, 1).size();
    EXPECT_EQ(engine_->load().leased_blocks, 1 + 3) << depth;
    engine_->CancelChoices(1, {1, 7, -1, 1});
    for (int i = 0; i < depth; ++i) Step();
    EXPECT_EQ(engine_->load().leased_blocks, 1 + 2) << depth;
    EXPECT_EQ(engine_->load().running_sequences, 2);
    StepUntilIdle();
    EXPECT_EQ(Tokens(1, 0), Alone(request, 0));
    EXPECT_EQ(Tokens(1, 1).size(), got);
    EXPECT_EQ(Tokens(1, 2), Alone(request, 2));
    EXPECT_THAT(Finishes(), SizeIs(2));
    EXPECT_TRUE(engine_->Drained());
    EXPECT_EQ(runner_->known_sequences(), 0);
  }
}

TEST_F(EngineTest, TheLastChoiceThatIsCancelledEndsItsGroupSilently) {
  options_.depth = 2;
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(20), 30, /*n=*/2)));
  while (Tokens(1, 1).empty()) Step();
  engine_->CancelChoices(1, {0});
  Step();
  EXPECT_FALSE(engine_->Drained());
  engine_->CancelChoices(1, {1});
  log_.reports.clear();
  StepUntilIdle();
  EXPECT_TRUE(engine_->Drained());
  EXPECT_EQ(engine_->load().leased_blocks, 0);
  EXPECT_EQ(runner_->known_sequences(), 0);
  EXPECT_THAT(Tokens(1, 0), IsEmpty());
  EXPECT_THAT(Tokens(1, 1), IsEmpty());
  EXPECT_THAT(Finishes(), IsEmpty());
  EXPECT_THAT(Errors(), IsEmpty());
}

// The second choice waits for the first one's prompt, and for its scores.
TEST_F(EngineTest, ASiblingGoesOnWhenTheChoiceThatPrefillsIsCancelled) {
  for (const int depth : {1, 2, 3}) {
    for (int steps = 1; steps <= 8; ++steps) {
      options_.depth = depth;
      options_.max_prefill_chunk = 16;
      log_.reports.clear();
      Start();
      GroupRequest request = Request(1, Prompt(70), 10, /*n=*/2);
      request.sampling.prompt_logprob_count = 0;
      ASSERT_OK(engine_->Submit(request));
      for (int i = 0; i < steps; ++i) Step();
      const size_t got = Tokens(1, 0).size();
      engine_->CancelChoices(1, {0});
      StepUntilIdle();
      EXPECT_EQ(Tokens(1, 0).size(), got) << depth << " " << steps;
      EXPECT_EQ(Tokens(1, 1), Alone(request, 1)) << depth << " " << steps;
      std::vector<ScoredToken> scores;
      for (const PromptEvent& event : Prompts()) {
        scores.insert(scores.end(), event.scores.begin(), event.scores.end());
      }
      EXPECT_EQ(scores, FakeModelRunner::PromptScores(model_, request));
      EXPECT_THAT(Finishes(), SizeIs(1));
      EXPECT_TRUE(engine_->Drained());
      EXPECT_EQ(engine_->load().leased_blocks, 0);
    }
  }
}

// What was in flight of a prompt when its choice was cancelled is not computed
// again.
TEST_F(EngineTest, ACancelledChoicesPromptIsStillItsSiblings) {
  options_.depth = 2;
  options_.max_prefill_chunk = 16;
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(64), 4, /*n=*/2)));
  Step();
  Step();
  engine_->CancelChoices(1, {0});
  StepUntilIdle();
  EXPECT_LT(Sum(&StepCounters::prefill_tokens), 64 + 32);
  EXPECT_GT(Sum(&StepCounters::cached_tokens), 0);
}

TEST_F(EngineTest, ANumericFaultEndsItsGroupOnlyAndItsBlocksAreForgotten) {
  Start();
  runner_->PoisonPrompts(Prompt(1, 1)[0]);
  ASSERT_OK(engine_->Submit(Request(1, Prompt(40, 1), 10)));
  const GroupRequest other = Request(2, Prompt(10, 2), 10);
  ASSERT_OK(engine_->Submit(other));
  StepUntilIdle();
  ASSERT_THAT(Errors(), SizeIs(1));
  EXPECT_EQ(Errors()[0].group, 1u);
  EXPECT_THAT(Errors()[0].status, HasReason(Reason::kNumericFault));
  EXPECT_THAT(Tokens(1), IsEmpty());
  EXPECT_EQ(Tokens(2), Alone(other));
  EXPECT_EQ(engine_->load().cached_blocks, 1);
}

TEST_F(EngineTest, ALostRunnerFailsEveryGroup) {
  options_.depth = 2;
  options_.max_running = 2;
  Start();
  for (GroupId id : {1, 2, 3}) {
    ASSERT_OK(engine_->Submit(Request(id, Prompt(40, id), 10)));
  }
  Step();
  runner_->FailNextCollect();
  EXPECT_THAT(engine_->Step(), HasReason(Reason::kWorkerLost));
  EXPECT_THAT(Errors(), SizeIs(3));
  for (const ErrorEvent& error : Errors()) {
    EXPECT_THAT(error.status, HasReason(Reason::kWorkerLost));
  }
  EXPECT_EQ(engine_->load().leased_blocks, 0);
  EXPECT_TRUE(engine_->Drained());
  EXPECT_THAT(engine_->Step(), HasReason(Reason::kWorkerLost));
  EXPECT_THAT(engine_->Submit(Request(4, Prompt(4), 1)),
              HasReason(Reason::kWorkerLost));
}

TEST_F(EngineTest, AResumedChoiceContinuesExactlyFromEveryPosition) {
  Start();
  GroupRequest request = Request(1, Prompt(21), 40);
  request.sampling.logprob_count = 0;
  const ReferenceStream whole =
      FakeModelRunner::Alone(model_, request, request.choices[0]);
  for (size_t k = 0; k < whole.tokens.size(); ++k) {
    GroupRequest resumed = request;
    resumed.id = 100 + k;
    for (size_t i = 0; i < k; ++i) {
      resumed.choices[0].output.push_back(whole.tokens[i].token_id);
    }
    log_.reports.clear();
    ASSERT_OK(engine_->Submit(resumed));
    StepUntilIdle();
    size_t position = k;
    for (const StepReport& report : log_.reports) {
      for (const TokenEvent& event : report.tokens) {
        EXPECT_EQ(event.position, static_cast<int>(position));
        EXPECT_EQ(event.token, whole.tokens[position++]);
      }
    }
    EXPECT_EQ(position, whole.tokens.size());
    EXPECT_EQ(Finishes()[0].output_token_count, 40);
  }
}

TEST_F(EngineTest, AResumedChoiceWithNothingLeftFinishesAtOnce) {
  Start();
  GroupRequest request = Request(1, Prompt(8), 3);
  request.choices[0].output = {1, 2, 3};
  ASSERT_OK(engine_->Submit(request));
  GroupRequest stopped = Request(2, Prompt(8), 9, /*n=*/2);
  stopped.end_ids = {7};
  stopped.choices[0].output = {1, 7};
  ASSERT_OK(engine_->Submit(stopped));
  StepUntilIdle();
  ASSERT_GE(Finishes().size(), 2u);
  EXPECT_EQ(Finishes()[0].end, ChoiceEnd::kLength);
  EXPECT_EQ(Finishes()[0].output_token_count, 3);
  EXPECT_EQ(Finishes()[1].end, ChoiceEnd::kStop);
  EXPECT_EQ(Finishes()[1].stop_token_id, 7);
  EXPECT_THAT(Tokens(1), IsEmpty());
  EXPECT_THAT(Tokens(2), IsEmpty());
  EXPECT_EQ(Tokens(2, 1), Alone(stopped, 1));
  EXPECT_TRUE(engine_->Drained());
}

TEST_F(EngineTest, IndexChangesEqualTheHashesThatStand) {
  options_.block_count = 4;
  Start();
  std::vector<kv::BlockHash> stand;
  for (GroupId id = 1; id <= 6; ++id) {
    ASSERT_OK(engine_->Submit(Request(id, Prompt(33, id), 1)));
    StepUntilIdle();
  }
  for (const StepReport& report : log_.reports) {
    for (const kv::BlockHash& hash : report.kv_changes.removed) {
      EXPECT_EQ(std::erase(stand, hash), 1u);
    }
    stand.insert(stand.end(), report.kv_changes.stored.begin(),
                 report.kv_changes.stored.end());
  }
  EXPECT_LE(stand.size(), 4u);
  EXPECT_THAT(engine_->CachedHashes(),
              ::testing::UnorderedElementsAreArray(stand));
}

}  // namespace
}  // namespace caravan::worker
