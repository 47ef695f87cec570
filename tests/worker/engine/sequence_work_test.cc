// What the engine says a sequence took, when it ends.
#include <gtest/gtest.h>

#include <vector>

#include "tests/worker/engine/engine_fixture.h"

namespace caravan::worker {
namespace {

using ::testing::SizeIs;

class SequenceWorkTest : public EngineFixture {
 protected:
  std::vector<SequenceWork> Works() const {
    std::vector<SequenceWork> all;
    for (const StepReport& report : log_.reports) {
      all.insert(all.end(), report.works.begin(), report.works.end());
    }
    return all;
  }
};

TEST_F(SequenceWorkTest, APromptIsPrefilledAndEachLaterTokenDecoded) {
  options_.max_prefill_chunk = 16;
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(40), 10)));
  StepUntilIdle();
  ASSERT_THAT(Works(), SizeIs(1));
  const SequenceWork work = Works()[0];
  EXPECT_EQ(work.group, 1u);
  EXPECT_EQ(work.prompt, 40);
  EXPECT_EQ(work.resumed, 0);
  EXPECT_EQ(work.reused, 0);
  EXPECT_EQ(work.prefilled, 40);
  EXPECT_EQ(work.generated, 10);
  EXPECT_EQ(work.decoded, 9);
  EXPECT_EQ(work.parked, 0);
}

TEST_F(SequenceWorkTest, AResumedOneIsPrefilledWithItsOutputLessWhatIsCached) {
  Start();
  GroupRequest request = Request(1, Prompt(40), 30);
  ASSERT_OK(engine_->Submit(request));
  StepUntilIdle();
  request.id = 2;
  request.choices[0].output = Tokens(1);
  request.choices[0].output.resize(12);
  ASSERT_OK(engine_->Submit(request));
  StepUntilIdle();
  ASSERT_THAT(Works(), SizeIs(2));
  const SequenceWork work = Works()[1];
  EXPECT_EQ(work.resumed, 12);
  EXPECT_EQ(work.reused, 48);  // three blocks of 52 positions
  EXPECT_EQ(work.prefilled, 4);
  EXPECT_EQ(work.generated, 18);
  EXPECT_EQ(work.decoded, 17);
}

TEST_F(SequenceWorkTest, OfAWhollyCachedPromptTheLastPositionIsComputed) {
  Start();
  for (const GroupId id : {1, 2}) {
    ASSERT_OK(engine_->Submit(Request(id, Prompt(32), 4)));
    StepUntilIdle();
  }
  ASSERT_THAT(Works(), SizeIs(2));
  EXPECT_EQ(Works()[1].reused, 31);
  EXPECT_EQ(Works()[1].prefilled, 1);
}

TEST_F(SequenceWorkTest, ChoicesShareAPromptThatOneComputes) {
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(40), 5, /*n=*/3)));
  StepUntilIdle();
  int prefilled = 0;
  ASSERT_THAT(Works(), SizeIs(3));
  for (const SequenceWork& work : Works()) {
    EXPECT_EQ(work.reused + work.prefilled, 40);
    EXPECT_EQ(work.decoded, 4);
    prefilled += work.prefilled;
  }
  EXPECT_EQ(prefilled, 42);  // and its last position for each other choice
}

TEST_F(SequenceWorkTest, ACancelledOneTellsWhatItTookUntilThen) {
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(10), 20)));
  for (int i = 0; i < 4; ++i) Step();
  engine_->Cancel(1);
  StepUntilIdle();
  ASSERT_THAT(Works(), SizeIs(1));
  EXPECT_EQ(Works()[0].generated, 4);
  EXPECT_EQ(Works()[0].decoded, 3);
}

TEST_F(SequenceWorkTest, AParkedOneSaysSoAndCountsWhatItComputesAgain) {
  options_.block_count = 6;
  options_.prefix_cache = false;
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(30, 1), 60)));
  ASSERT_OK(engine_->Submit(Request(2, Prompt(30, 2), 60)));
  StepUntilIdle();
  ASSERT_THAT(Works(), SizeIs(2));
  const SequenceWork work = Works()[1];
  EXPECT_EQ(work.group, 2u);
  EXPECT_GE(work.parked, 1);
  EXPECT_GT(work.prefilled, 30);
  EXPECT_EQ(work.generated, 60);
}

}  // namespace
}  // namespace caravan::worker
