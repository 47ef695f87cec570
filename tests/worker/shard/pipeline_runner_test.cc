#include "worker/shard/pipeline_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/shard/local_stages.h"
#include "tests/worker/shard/two_sequences.h"
#include "worker/shard/shard_runner.h"

namespace caravan::worker {
namespace {

using ::testing::HasSubstr;

std::string TinyModel(const std::string& name) {
  return testing::RepositoryPath("tests/data/tiny/" + name);
}

ShardOptions SmallShard() {
  return {.block_count = 16, .max_step_tokens = 64, .max_logits_rows = 4};
}

class PipelineRunnerTest : public ::testing::Test {
 protected:
  absl::Status Load(const std::string& directory, int32_t count) {
    CARAVAN_ASSIGN_OR_RETURN(stages_,
                             LocalStages::Load(directory, count, SmallShard()));
    return absl::OkStatus();
  }

  std::vector<ScoredToken> Whole(const std::string& directory) {
    auto backend = *MakeReferenceBackend(NumericsOptions());
    const auto model = *LoadModel(directory, ModelOptions(), backend.get());
    const auto runner = *ShardRunner::Create(model.get(), backend.get(),
                                             {.block_count = 16,
                                              .max_step_tokens = 64,
                                              .max_logits_rows = 4,
                                              .max_in_flight = 2});
    return RunTwoSequences(*runner, model->description.config.vocab_size,
                           /*new_tokens=*/8);
  }

  std::vector<ScoredToken> InStages(const std::string& directory,
                                    int32_t count) {
    const absl::Status loaded = Load(directory, count);
    EXPECT_OK(loaded);
    if (!loaded.ok()) return {};
    PipelineRunner runner(
        stages_.shards[0].get(), stages_.Link(), {.max_in_flight = 2},
        [](const absl::Status& status) { ADD_FAILURE() << status; });
    return RunTwoSequences(runner,
                           stages_.models[0]->description.config.vocab_size,
                           /*new_tokens=*/8);
  }

  void ExpectEqualBits(const std::string& directory) {
    const std::vector<ScoredToken> whole = Whole(directory);
    ASSERT_EQ(whole.size(), 2u * (kPromptTokens - 1 + 9));
    for (const int32_t count : {2, 4}) {
      const std::vector<ScoredToken> staged = InStages(directory, count);
      EXPECT_TRUE(std::ranges::equal(whole, staged, SameBits))
          << count << " stages";
    }
  }

  LocalStages stages_;
};

TEST_F(PipelineRunnerTest, OneTwoAndFourStagesOfTheDemoModelGiveEqualBits) {
  ExpectEqualBits(testing::RepositoryPath("deploy/demo-model"));
}

TEST_F(PipelineRunnerTest, StagesOfTheFirstLlamaGiveEqualBits) {
  const std::string model = TinyModel("llama1-mha");
  EXPECT_TRUE(std::ranges::equal(Whole(model), InStages(model, 2), SameBits));
}

TEST_F(PipelineRunnerTest, TiedTableServesTheFirstAndTheLastStage) {
  const std::string model = TinyModel("tied");
  EXPECT_TRUE(std::ranges::equal(Whole(model), InStages(model, 2), SameBits));
}

TEST_F(PipelineRunnerTest, AngleThatDependsOnThePromptIsTheSameOnEveryStage) {
  const std::string model = TinyModel("rope-dynamic");
  EXPECT_TRUE(std::ranges::equal(Whole(model), InStages(model, 2), SameBits));
}

TEST_F(PipelineRunnerTest, StagesShareTheTensorsAmongThem) {
  const std::string directory = testing::RepositoryPath("deploy/demo-model");
  auto backend = *MakeReferenceBackend(NumericsOptions());
  const auto whole = *LoadModel(directory, ModelOptions(), backend.get());
  ASSERT_OK(Load(directory, 4));
  WeightsListing joined;
  size_t bytes = 0;
  size_t tensors = 0;
  for (const auto& model : stages_.models) {
    ASSERT_OK(joined.Join(model->weights.listing.Listing()));
    EXPECT_EQ(model->weights.bytes, model->description.plan.weight_bytes);
    bytes += model->weights.bytes;
    tensors += model->weights.listing.size();
  }
  EXPECT_EQ(joined.Id(), whole->weights.id);
  EXPECT_GE(bytes, whole->weights.bytes);
  EXPECT_LE(tensors, joined.size() + 1);  // a tied table is in two
}

TEST_F(PipelineRunnerTest, FailureOfALaterStageIsStickyAndToldOnce) {
  ASSERT_OK(Load(TinyModel("gqa"), 2));
  int lost = 0;
  PipelineRunner runner(stages_.shards[0].get(), stages_.Link(),
                        {.max_in_flight = 2},
                        [&lost](const absl::Status&) { ++lost; });
  const SequenceSpec spec = SpecOf(0, 64);
  runner.AddSequence(spec);
  BatchPlan plan;
  plan.rows.push_back(RowOf(spec, {}, 0, 4));
  plan.rows[0].blocks = {100};  // there are 16
  ASSERT_OK(runner.Launch(plan));
  EXPECT_THAT(runner.Collect(), testing::HasReason(Reason::kInternal));
  ASSERT_OK(runner.Launch(plan));
  EXPECT_THAT(runner.Collect(), testing::HasReason(Reason::kInternal));
}

// A stage that takes everything and never answers.
class SilentLink final : public StageLink {
 public:
  void Start(StageLinkEvents* events) override {}
  void AddSequence(const SequenceSpec& spec) override {}
  void DropSequence(SequenceId id) override {}
  void Run(const BatchPlan& plan, std::span<const float> hidden) override {}
};

TEST_F(PipelineRunnerTest, StepWithoutAnAnswerEndsAtItsDeadline) {
  ASSERT_OK(Load(TinyModel("gqa"), 2));
  PipelineRunner runner(
      stages_.shards[0].get(), std::make_unique<SilentLink>(),
      {.max_in_flight = 1, .step_timeout = absl::Milliseconds(20)},
      [](const absl::Status&) {});
  const SequenceSpec spec = SpecOf(0, 64);
  runner.AddSequence(spec);
  BatchPlan plan;
  plan.rows.push_back(RowOf(spec, {}, 0, 4));
  ASSERT_OK(runner.Launch(plan));
  EXPECT_THAT(runner.Collect(), testing::HasReason(Reason::kWorkerLost,
                                                   HasSubstr("within 20ms")));
}

// Breaks when it is told to.
class FragileLink final : public StageLink {
 public:
  explicit FragileLink(StageLinkEvents** events) : events_(events) {}
  void Start(StageLinkEvents* events) override { *events_ = events; }
  void AddSequence(const SequenceSpec& spec) override {}
  void DropSequence(SequenceId id) override {}
  void Run(const BatchPlan& plan, std::span<const float> hidden) override {}

 private:
  StageLinkEvents** const events_;
};

TEST_F(PipelineRunnerTest, LostStageIsToldWithoutAPlanInFlight) {
  ASSERT_OK(Load(TinyModel("gqa"), 2));
  StageLinkEvents* events = nullptr;
  int lost = 0;
  PipelineRunner runner(stages_.shards[0].get(),
                        std::make_unique<FragileLink>(&events), {},
                        [&lost](const absl::Status&) { ++lost; });
  events->OnBroken(MakeError(Reason::kWorkerLost, "gone"));
  events->OnBroken(MakeError(Reason::kWorkerLost, "gone again"));
  EXPECT_EQ(lost, 1);
  const SequenceSpec spec = SpecOf(0, 64);
  runner.AddSequence(spec);
  BatchPlan plan;
  plan.rows.push_back(RowOf(spec, {}, 0, 4));
  ASSERT_OK(runner.Launch(plan));
  EXPECT_THAT(runner.Collect(),
              testing::HasReason(Reason::kWorkerLost, HasSubstr("gone")));
}

TEST(StageTest, BordersShareTheMatricesAndLeaveEachStageALayer) {
  ModelConfig config;
  config.hidden_size = 2048;
  config.intermediate_size = 5632;
  config.layers = 22;
  config.heads = 32;
  config.kv_heads = 4;
  config.head_dim = 64;
  config.vocab_size = 32000;
  // The head weighs as much as one and a half layers.
  EXPECT_EQ(config.LayersOf({0, 2}), (LayerRange{0, 12}));
  EXPECT_EQ(config.LayersOf({1, 2}), (LayerRange{12, 22}));
  for (int32_t count = 1; count <= config.layers; ++count) {
    int32_t next = 0;
    for (int32_t i = 0; i < count; ++i) {
      const LayerRange layers = config.LayersOf({i, count});
      EXPECT_EQ(layers.begin, next);
      EXPECT_GE(layers.size(), 1);
      next = layers.end;
    }
    EXPECT_EQ(next, config.layers);
  }
  config.vocab_size = 10000000;  // a head heavier than all layers
  EXPECT_EQ(config.LayersOf({0, 2}), (LayerRange{0, 21}));
  EXPECT_THAT(CheckStage("--stage", {0, 23}, config),
              testing::HasReason(Reason::kInvalidField, HasSubstr("23")));
  EXPECT_THAT(CheckStage("--stage", {2, 2}, config),
              testing::HasReason(Reason::kInvalidField, HasSubstr("[0, 2)")));
}

}  // namespace
}  // namespace caravan::worker
