#include "gateway/ending.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "common/receipt/receipt.h"
#include "tests/gateway/groups.h"
#include "tests/support/status_matchers.h"

namespace caravan::gateway {
namespace {

using testing::GroupInit;
using testing::IdsOf;

class EndingTest : public ::testing::Test {
 protected:
  EndingTest() { context_.clock = &SystemClock::Get(); }

  // A request whose prompts of `n` choices all gave `output`.
  std::unique_ptr<RunningRequest> MakeEnded(
      int32_t prompts, int32_t n, const std::vector<TokenId>& output) {
    GenerationRequest request;
    request.n = n;
    auto run = std::make_unique<RunningRequest>(context_, std::move(request));
    run->facts.name = "fake";
    run->vocabulary = vocabulary_;
    for (int32_t i = 0; i < prompts; ++i) {
      PromptGroup::Init init = GroupInit(IdsOf("hello"), n, /*max_tokens=*/3);
      init.index = i;
      run->groups.emplace_back(std::move(init), *vocabulary_,
                               run->choice_options);
      for (int32_t choice = 0; choice < n; ++choice) {
        EXPECT_OK(run->groups.back().Resume(choice, output));
      }
      run->groups.back().FinishSpent();
    }
    return run;
  }
  static v1::Receipt ReceiptOf(const RunningRequest& run) {
    const auto receipt =
        receipt::DecodeReceipt(receipt::EncodeReceipt(MakeReceipt(run)));
    EXPECT_OK(receipt);
    return receipt.ok() ? *receipt : v1::Receipt();
  }

  const std::shared_ptr<const text::Vocabulary> vocabulary_ =
      std::make_shared<const text::Vocabulary>(testing::MakeLetters());
  GenerationContext context_;
};

TEST_F(EndingTest, UsageIsTheSumOverPromptsAndChoices) {
  const auto run = MakeEnded(/*prompts=*/2, /*n=*/3, {7, 8, 9});
  const Finished finished = MakeFinished(*run);
  EXPECT_EQ(finished.prompt_token_count, 10);
  EXPECT_EQ(finished.output_token_count, 18);
}

TEST_F(EndingTest, TheReceiptHashesPromptsAndEachChoice) {
  const auto run = MakeEnded(/*prompts=*/2, /*n=*/2, {7, 8, 9});
  const v1::Receipt receipt = ReceiptOf(*run);
  std::vector<TokenId> both = IdsOf("hello");
  both.insert(both.end(), both.begin(), both.begin() + 5);
  EXPECT_EQ(receipt.prompt_sha256(), receipt::Sha256OfIds(both));
  ASSERT_EQ(receipt.choices_size(), 4);
  EXPECT_EQ(receipt.choices(3).index(), 3);
  EXPECT_EQ(receipt.choices(3).output_sha256(),
            receipt::Sha256OfIds(std::vector<TokenId>{7, 8, 9}));
  EXPECT_EQ(receipt.choices(3).finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(EndingTest, MoreChoicesThanTheReceiptHasRoomForAreLeftOut) {
  const auto run = MakeEnded(/*prompts=*/1, /*n=*/17, {7, 8, 9});
  EXPECT_EQ(ReceiptOf(*run).choices_size(), 0);
}

TEST_F(EndingTest, AnInexactResumeIsInTheEventAndInTheReceipt) {
  const auto run = MakeEnded(/*prompts=*/1, /*n=*/2, {7, 8, 9});
  run->inexact_resumes.push_back({/*choice=*/1, /*from_position=*/2, "b/v1"});
  EXPECT_EQ(MakeFinished(*run).inexact_resumes.size(), 1u);
  const v1::Receipt receipt = ReceiptOf(*run);
  ASSERT_EQ(receipt.inexact_resumes_size(), 1);
  EXPECT_EQ(receipt.inexact_resumes(0).choice(), 1);
  EXPECT_EQ(receipt.inexact_resumes(0).from_position(), 2);
  EXPECT_EQ(receipt.inexact_resumes(0).numerics_class(), "b/v1");
}

}  // namespace
}  // namespace caravan::gateway
