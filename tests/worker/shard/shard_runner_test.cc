#include "worker/shard/shard_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "common/json.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "worker/ops/reference/reference_backend.h"

namespace caravan::worker {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr SequenceId kSequence = 3;

std::vector<TokenId> GoldenIds(const std::string& model,
                               const std::string& key) {
  const auto golden = ParseJson(testing::ReadFile(
      testing::RepositoryPath("tests/data/tiny/" + model + "/goldens.json")));
  return golden[key].get<std::vector<TokenId>>();
}

class ShardRunnerTest : public ::testing::Test {
 protected:
  void Start(const std::string& model, ShardRunnerOptions options) {
    auto backend = MakeReferenceBackend(NumericsOptions());
    ASSERT_OK(backend);
    backend_ = *std::move(backend);
    auto loaded = LoadModel(testing::RepositoryPath("tests/data/tiny/" + model),
                            ModelOptions(), backend_.get());
    ASSERT_OK(loaded);
    model_ = *std::move(loaded);
    auto runner = ShardRunner::Create(model_.get(), backend_.get(), options);
    ASSERT_OK(runner);
    runner_ = *std::move(runner);
  }

  static ShardRunnerOptions Options() {
    ShardRunnerOptions options;
    options.block_count = 8;
    options.max_step_tokens = 64;
    options.max_logits_rows = 4;
    options.max_in_flight = 2;
    return options;
  }

  static SequenceSpec Greedy(std::vector<TokenId> prompt) {
    SequenceSpec spec;
    spec.id = kSequence;
    spec.prompt =
        std::make_shared<const std::vector<TokenId>>(std::move(prompt));
    spec.sampling.temperature = 0;
    return spec;
  }

  // A row over [first, first + tokens.size()) in blocks 0, 1, ...
  static BatchPlan Plan(std::vector<TokenId> tokens, int32_t first) {
    BatchPlan plan;
    PlanRow& row = plan.rows.emplace_back();
    row.sequence = kSequence;
    row.first_position = first;
    row.tokens = std::move(tokens);
    row.blocks.resize((first + row.tokens.size() + 15) / 16);
    std::iota(row.blocks.begin(), row.blocks.end(), 0);
    return plan;
  }

  absl::StatusOr<RowResult> Run(BatchPlan plan) {
    CARAVAN_RETURN_IF_ERROR(runner_->Launch(std::move(plan)));
    CARAVAN_ASSIGN_OR_RETURN(const StepResult result, runner_->Collect());
    return result.rows.at(0);
  }

  // Greedy ids after a prompt, from the plans an engine would make.
  std::vector<TokenId> Generate(const std::vector<TokenId>& prompt,
                                int32_t count) {
    std::vector<TokenId> output;
    BatchPlan plan = Plan(prompt, 0);
    while (static_cast<int32_t>(output.size()) < count) {
      plan.rows[0].sample = true;
      plan.rows[0].output_position = static_cast<int32_t>(output.size());
      const auto row = Run(std::move(plan));
      EXPECT_OK(row);
      if (!row.ok() || !row->token) break;
      output.push_back(row->token->token_id);
      plan = Plan({output.back()},
                  static_cast<int32_t>(prompt.size() + output.size()) - 1);
    }
    return output;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<ShardRunner> runner_;
};

TEST_F(ShardRunnerTest, GreedyStreamIsTheGolden) {
  Start("gqa", Options());
  const std::vector<TokenId> prompt = GoldenIds("gqa", "input_ids");
  runner_->AddSequence(Greedy(prompt));
  EXPECT_THAT(Generate(prompt, 16),
              ElementsAreArray(GoldenIds("gqa", "greedy_ids")));
}

TEST_F(ShardRunnerTest, PromptScoresComeInSlicesWithoutGaps) {
  Start("gqa", Options());
  const std::vector<TokenId> prompt = GoldenIds("gqa", "input_ids");
  SequenceSpec spec = Greedy(prompt);
  spec.sampling.prompt_logprob_count = 2;
  spec.sampling.logprob_count = 0;
  runner_->AddSequence(std::move(spec));
  BatchPlan plan = Plan(prompt, 0);
  plan.rows[0].score_prompt = true;
  plan.rows[0].sample = true;
  ASSERT_OK_AND_ASSIGN(const RowResult row, Run(std::move(plan)));
  EXPECT_EQ(row.first_scored_position, 1);
  ASSERT_EQ(row.prompt_scores.size(), prompt.size() - 1);
  for (size_t i = 0; i < row.prompt_scores.size(); ++i) {
    EXPECT_EQ(row.prompt_scores[i].token_id, prompt[i + 1]);
    EXPECT_LT(*row.prompt_scores[i].logprob, 0);
    EXPECT_EQ(row.prompt_scores[i].candidates.size(), 2u);
  }
  EXPECT_EQ(row.token->rank, 1);
  EXPECT_TRUE(row.token->logprob.has_value());
}

TEST_F(ShardRunnerTest, ScoredPrefixOfAPromptReachesIntoTheNextChunk) {
  Start("gqa", Options());
  const std::vector<TokenId> prompt = GoldenIds("gqa", "input_ids");
  SequenceSpec spec = Greedy(prompt);
  spec.sampling.prompt_logprob_count = 0;
  runner_->AddSequence(std::move(spec));
  BatchPlan plan = Plan({prompt.begin(), prompt.begin() + 10}, 0);
  plan.rows[0].score_prompt = true;
  ASSERT_OK_AND_ASSIGN(const RowResult row, Run(std::move(plan)));
  ASSERT_EQ(row.prompt_scores.size(), 10u);
  EXPECT_EQ(row.prompt_scores.back().token_id, prompt[10]);
  EXPECT_FALSE(row.token.has_value());
}

TEST_F(ShardRunnerTest, CopiedBlockServesAsThePrefixOfAnotherSequence) {
  Start("gqa", Options());
  const std::vector<TokenId> prompt = GoldenIds("gqa", "input_ids");
  runner_->AddSequence(Greedy(prompt));
  BatchPlan first = Plan(prompt, 0);
  first.rows[0].sample = true;
  ASSERT_OK_AND_ASSIGN(const RowResult expected, Run(std::move(first)));
  // The last token again, in a copy of the third block, nothing stored.
  BatchPlan again = Plan({prompt.back()}, 47);
  again.copies = {{2, 5}};
  again.rows[0].blocks = {0, 1, 5};
  again.rows[0].first_stored_position = 48;
  again.rows[0].sample = true;
  ASSERT_OK_AND_ASSIGN(const RowResult row, Run(std::move(again)));
  EXPECT_EQ(row.token->token_id, expected.token->token_id);
}

TEST_F(ShardRunnerTest, SecondPlanMayBeLaunchedBeforeTheFirstIsCollected) {
  Start("gqa", Options());
  const std::vector<TokenId> prompt = GoldenIds("gqa", "input_ids");
  runner_->AddSequence(Greedy(prompt));
  BatchPlan second = Plan({prompt.begin() + 20, prompt.end()}, 20);
  second.rows[0].sample = true;
  ASSERT_OK(runner_->Launch(Plan({prompt.begin(), prompt.begin() + 20}, 0)));
  ASSERT_OK(runner_->Launch(std::move(second)));
  EXPECT_EQ(runner_->in_flight(), 2);
  EXPECT_THAT(runner_->Launch(Plan({1}, 0)),
              testing::HasReason(Reason::kInternal, HasSubstr("in flight")));
  ASSERT_OK(runner_->Collect());
  ASSERT_OK_AND_ASSIGN(const StepResult result, runner_->Collect());
  EXPECT_EQ(result.rows[0].token->token_id, GoldenIds("gqa", "greedy_ids")[0]);
}

TEST_F(ShardRunnerTest, IdsOutsideTheVocabularyFailOnlyTheirRow) {
  Start("gqa", Options());
  SequenceSpec bad = Greedy({1, 100000});
  bad.id = 9;
  runner_->AddSequence(std::move(bad));
  const std::vector<TokenId> prompt = GoldenIds("gqa", "input_ids");
  runner_->AddSequence(Greedy(prompt));
  BatchPlan plan = Plan(prompt, 0);
  plan.rows[0].sample = true;
  PlanRow& row = plan.rows.emplace_back();
  row.sequence = 9;
  row.tokens = {1, 100000};
  row.blocks = {7};
  row.sample = true;
  ASSERT_OK(runner_->Launch(std::move(plan)));
  ASSERT_OK_AND_ASSIGN(const StepResult result, runner_->Collect());
  EXPECT_EQ(result.rows[0].token->token_id, GoldenIds("gqa", "greedy_ids")[0]);
  EXPECT_THAT(result.rows[1].status,
              testing::HasReason(Reason::kInvalidField, HasSubstr("100000")));
}

TEST_F(ShardRunnerTest, NotANumberInTheLogitsIsANumericFault) {
  Start("gqa", Options());
  for (float& weight : model_->weights.final_norm) {
    weight = std::numeric_limits<float>::quiet_NaN();
  }
  runner_->AddSequence(Greedy({1, 2, 3}));
  BatchPlan plan = Plan({1, 2, 3}, 0);
  plan.rows[0].sample = true;
  ASSERT_OK_AND_ASSIGN(const RowResult row, Run(std::move(plan)));
  EXPECT_THAT(row.status, testing::HasReason(Reason::kNumericFault));
  EXPECT_FALSE(row.token.has_value());
}

TEST_F(ShardRunnerTest, PlansThatBreakTheContractFailStickily) {
  Start("gqa", Options());
  ASSERT_OK(runner_->Launch(Plan({1, 2}, 0)));
  EXPECT_THAT(runner_->Collect(),
              testing::HasReason(Reason::kInternal, HasSubstr("not added")));
  runner_->AddSequence(Greedy({1, 2}));
  ASSERT_OK(runner_->Launch(Plan({1, 2}, 0)));
  EXPECT_THAT(runner_->Collect(), testing::HasReason(Reason::kInternal));
}

TEST_F(ShardRunnerTest, TooManyTokensAreRefusedAtLaunch) {
  Start("gqa", Options());
  EXPECT_THAT(
      runner_->Launch(Plan(std::vector<TokenId>(65, 1), 0)),
      testing::HasReason(Reason::kInternal, HasSubstr("at most 64; got 65")));
}

TEST_F(ShardRunnerTest, PenaltiesCountWhatWasSampledBefore) {
  Start("gqa", Options());
  const std::vector<TokenId> prompt = GoldenIds("gqa", "input_ids");
  SequenceSpec spec = Greedy(prompt);
  spec.sampling.frequency_penalty = 2;
  spec.sampling.presence_penalty = 2;
  runner_->AddSequence(spec);
  const std::vector<TokenId> whole = Generate(prompt, 24);
  // The same stream, resumed with its first 10 tokens.
  runner_->DropSequence(kSequence);
  spec.output = {whole.begin(), whole.begin() + 10};
  runner_->AddSequence(spec);
  std::vector<TokenId> tokens = prompt;
  tokens.insert(tokens.end(), spec.output.begin(), spec.output.end());
  BatchPlan plan = Plan(tokens, 0);
  plan.rows[0].sample = true;
  plan.rows[0].output_position = 10;
  ASSERT_OK_AND_ASSIGN(const RowResult row, Run(std::move(plan)));
  EXPECT_EQ(row.token->token_id, whole[10]);
}

TEST_F(ShardRunnerTest, AllocatesWhatThePlanSays) {
  Start("tied", Options());
  const MemoryPlan plan = MakeMemoryPlan(
      model_->description.config, PlannedDType(model_->description.config),
      *backend_, {.max_step_tokens = 64, .max_logits_rows = 4});
  EXPECT_EQ(model_->weights.bytes, plan.weight_bytes);
  EXPECT_EQ(runner_->arena_bytes(), plan.arena_bytes);
  EXPECT_EQ(runner_->kv_bytes(), 8 * plan.kv_block_bytes);
}

}  // namespace
}  // namespace caravan::worker
