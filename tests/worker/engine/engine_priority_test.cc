// Who passes whom: a high priority at a full cache, and who is over its share.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/worker/engine/engine_fixture.h"

namespace caravan::worker {
namespace {

class EnginePriorityTest : public EngineFixture,
                           public ::testing::WithParamInterface<int> {
 protected:
  // Low priorities, prompts and decodes, that hold every block.
  void FillCache() {
    for (GroupId id = 1; id <= 6; ++id) {
      low_.push_back(Request(id, Prompt(40, static_cast<int>(id)), 60));
      low_.back().priority = -1;
      ASSERT_OK(engine_->Submit(low_.back()));
    }
    for (int i = 0; i < 1000 && engine_->load().free_blocks > 0; ++i) Step();
    ASSERT_EQ(engine_->load().free_blocks, 0);
    ASSERT_EQ(engine_->load().cached_blocks, 0);
    ASSERT_TRUE(Finishes().empty());
  }

  // Steps until the group's first token, that one included.
  int StepsToFirstToken(GroupId id) {
    for (int steps = 1; steps < 100; ++steps) {
      Step();
      if (!Tokens(id).empty()) return steps;
    }
    return 100;
  }

  std::vector<GroupRequest> low_;
};

// The parameter is the depth: plans in flight. Steps are counted as results
// come, so those that were in flight when it arrived are among them.
TEST_P(EnginePriorityTest, AHighPriorityAtAFullCacheHasItsTokenInTwoSteps) {
  options_.depth = GetParam();
  options_.prefix_cache = false;  // nothing can be had by eviction
  Start();
  FillCache();
  constexpr int kPrompt = 60;
  GroupRequest high = Request(100, Prompt(kPrompt, 9), 4);
  high.priority = 1;
  ASSERT_OK(engine_->Submit(high));
  const int own_prefill =
      (kPrompt + options_.max_prefill_chunk - 1) / options_.max_prefill_chunk;
  EXPECT_LE(StepsToFirstToken(100), 2 + own_prefill + options_.depth - 1);
  StepUntilIdle();
  EXPECT_GT(Sum(&StepCounters::parked), 0);
  EXPECT_EQ(Tokens(100), Alone(high));
  for (const GroupRequest& request : low_) {
    EXPECT_EQ(Tokens(request.id), Alone(request)) << "group " << request.id;
  }
  EXPECT_EQ(Finishes().size(), low_.size() + 1);
}

INSTANTIATE_TEST_SUITE_P(Depths, EnginePriorityTest, ::testing::Values(1, 2));

class EngineShareTest : public EngineFixture {
 protected:
  GroupRequest Flood(GroupId id, int prompt, int max_tokens) {
    GroupRequest request =
        Request(id, Prompt(prompt, static_cast<int>(id)), max_tokens);
    request.over_share = true;
    return request;
  }
};

TEST_F(EngineShareTest, APromptInItsSharePassesOneThatIsOver) {
  options_.max_prefill_tokens = 16;
  Start();
  const GroupRequest flood = Flood(1, 150, 4);
  ASSERT_OK(engine_->Submit(flood));
  Step();
  const GroupRequest other = Request(2, Prompt(48, 5), 4);
  ASSERT_OK(engine_->Submit(other));
  for (int i = 0; i < 3; ++i) Step();
  EXPECT_EQ(Tokens(2).size(), 1u);  // three chunks, one after the other
  EXPECT_TRUE(Tokens(1).empty());
  StepUntilIdle();
  EXPECT_EQ(Tokens(1), Alone(flood));
  EXPECT_EQ(Tokens(2), Alone(other));
}

// The fake runner's steps take a part for each token.
TEST_F(EngineShareTest, WhoIsOverItsShareAddsLittleToAnothersSteps) {
  options_.max_prefill_tokens = 8;
  Start();
  const GroupRequest flood = Flood(1, 8, 100);
  ASSERT_OK(engine_->Submit(flood));
  for (int i = 0; i < 3; ++i) Step();
  const size_t before = Tokens(1).size();
  const GroupRequest other = Request(2, Prompt(96, 5), 60);
  ASSERT_OK(engine_->Submit(other));
  for (int i = 0; i < 12 + 48; ++i) Step();
  EXPECT_GE(Tokens(2).size(), 48u);
  // A token adds less than a tenth of such a step: it is not held back.
  EXPECT_GT(Tokens(1).size(), before + 40);
  StepUntilIdle();
  EXPECT_EQ(Tokens(1), Alone(flood));
  EXPECT_EQ(Tokens(2), Alone(other));
}

TEST_F(EngineShareTest,
       APromptOverItsShareIsComputedInPartsBesideAnothersToken) {
  options_.max_prefill_tokens = 32;
  Start();
  const GroupRequest other = Request(2, Prompt(8, 5), 200);
  ASSERT_OK(engine_->Submit(other));
  for (int i = 0; i < 4; ++i) Step();
  const GroupRequest flood = Flood(1, 96, 4);  // three chunks
  ASSERT_OK(engine_->Submit(flood));
  const size_t before = Tokens(2).size();
  int steps = 0;
  while (Tokens(1).empty() && steps < 150) {
    Step();
    ++steps;
  }
  // A chunk takes about two of the other's steps, so it is had every fortieth.
  EXPECT_GT(steps, 90);
  EXPECT_LT(steps, 150);
  EXPECT_EQ(Tokens(2).size(), before + static_cast<size_t>(steps));
  StepUntilIdle();
  EXPECT_EQ(Tokens(1), Alone(flood));
  EXPECT_EQ(Tokens(2), Alone(other));
}

// Others' prompts take all the prefill there is, for ever.
TEST_F(EngineShareTest, APromptOverItsShareDoesNotStarveBesideOthersPrompts) {
  options_.max_prefill_tokens = 8;
  Start();
  ASSERT_OK(engine_->Submit(Request(2, Prompt(8, 5), 1)));
  const GroupRequest flood = Flood(1, 24, 4);
  ASSERT_OK(engine_->Submit(flood));
  GroupId next = 3;
  for (int i = 0; i < 200 && Tokens(1).size() < 4; ++i) {
    if (i % 2 == 0) {
      const auto id = static_cast<int>(next);
      ASSERT_OK(engine_->Submit(Request(next++, Prompt(16, id), 1)));
    }
    Step();
  }
  EXPECT_EQ(Tokens(1), Alone(flood));
}

TEST_F(EngineShareTest, WhereAllAreOverTheirShareNobodyYields) {
  Start();
  ASSERT_OK(engine_->Submit(Flood(1, 8, 20)));
  Step();
  const size_t before = Tokens(1).size();
  ASSERT_OK(engine_->Submit(Flood(2, 96, 4)));
  for (int i = 0; i < 4; ++i) Step();
  EXPECT_EQ(Tokens(1).size(), before + 4);
}

TEST_F(EngineShareTest, APriorityComesBeforeAShare) {
  options_.max_prefill_tokens = 16;
  Start();
  GroupRequest urgent = Flood(1, 64, 2);
  urgent.priority = 1;
  ASSERT_OK(engine_->Submit(Request(2, Prompt(64, 5), 2)));
  ASSERT_OK(engine_->Submit(urgent));
  for (int i = 0; i < 4; ++i) Step();
  EXPECT_EQ(Tokens(1).size(), 1u);
  EXPECT_TRUE(Tokens(2).empty());
}

TEST_F(EngineShareTest, LoadsTellAPartOfWhatYields) {
  Start();
  ASSERT_OK(engine_->Submit(Flood(1, 80, 4)));
  EXPECT_EQ(engine_->load().queued_prefill_tokens, 1);
  ASSERT_OK(engine_->Submit(Request(2, Prompt(80, 5), 4)));
  EXPECT_EQ(engine_->load().queued_prefill_tokens, 81);
}

}  // namespace
}  // namespace caravan::worker
