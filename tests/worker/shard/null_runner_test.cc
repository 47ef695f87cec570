#include "worker/shard/null_runner.h"

#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

SequenceSpec Spec() {
  SequenceSpec spec;
  spec.id = 7;
  spec.prompt =
      std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{1, 2});
  spec.end_ids = {3};
  return spec;
}

BatchPlan SamplePlan(int32_t output_position) {
  BatchPlan plan;
  plan.step = 5;
  PlanRow& row = plan.rows.emplace_back();
  row.sequence = 7;
  row.tokens = {1, 2};
  row.blocks = {0};
  row.sample = true;
  row.output_position = output_position;
  return plan;
}

TEST(NullRunnerTest, TokensFollowThePositionAndSkipEndIds) {
  NullRunner runner(/*vocab_size=*/10);
  runner.AddSequence(Spec());
  const TokenId expected[] = {2, 4, 4};
  for (int32_t position = 2; position < 5; ++position) {
    ASSERT_OK(runner.Launch(SamplePlan(position)));
    ASSERT_OK_AND_ASSIGN(const StepResult result, runner.Collect());
    EXPECT_EQ(result.step, 5);
    EXPECT_EQ(result.rows.at(0).token->token_id, expected[position - 2]);
  }
}

TEST(NullRunnerTest, ScoresAreThoseOfAUniformDistribution) {
  NullRunner runner(/*vocab_size=*/10);
  SequenceSpec spec = Spec();
  spec.sampling.logprob_count = 2;
  spec.sampling.prompt_logprob_count = 0;
  runner.AddSequence(std::move(spec));
  BatchPlan plan = SamplePlan(0);
  plan.rows[0].score_prompt = true;
  ASSERT_OK(runner.Launch(std::move(plan)));
  ASSERT_OK_AND_ASSIGN(const StepResult result, runner.Collect());
  const RowResult& row = result.rows.at(0);
  EXPECT_FLOAT_EQ(*row.token->logprob, -2.3025851f);
  EXPECT_EQ(row.token->candidates.size(), 2u);
  ASSERT_EQ(row.prompt_scores.size(), 1u);
  EXPECT_EQ(row.prompt_scores[0].token_id, 2);
  EXPECT_EQ(row.first_scored_position, 1);
}

TEST(NullRunnerTest, CollectsInOrderAndCountsPlansInFlight) {
  NullRunner runner(/*vocab_size=*/10);
  runner.AddSequence(Spec());
  ASSERT_OK(runner.Launch(SamplePlan(0)));
  ASSERT_OK(runner.Launch(SamplePlan(1)));
  EXPECT_EQ(runner.in_flight(), 2);
  ASSERT_OK_AND_ASSIGN(const StepResult first, runner.Collect());
  ASSERT_OK_AND_ASSIGN(const StepResult second, runner.Collect());
  EXPECT_EQ(first.rows[0].token->token_id, 0);
  EXPECT_EQ(second.rows[0].token->token_id, 1);
  EXPECT_THAT(runner.Collect(), testing::HasReason(Reason::kInternal));
}

}  // namespace
}  // namespace caravan::worker
