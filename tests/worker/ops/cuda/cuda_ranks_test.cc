// Ranks that are devices: each has its heads, columns and segments, and
// together they have the bits of one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/status/status_macros.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/worker/ops/cuda/emulated_ranks.h"
#include "tests/worker/ops/op_trial.h"
#include "worker/model/memory_plan.h"
#include "worker/model/model_loader.h"
#include "worker/model/random_model.h"
#include "worker/shard/shard_runner.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::HasReason;
using testing::EmulatedRanks;
using ::testing::HasSubstr;
using testing::OpTrial;
using testing::TrialResult;
using testing::TrialSequence;
using testing::TrialShape;

std::unique_ptr<Backend> MakeOne(const CudaOptions& options) {
  auto one = cuda::MakeBackendOn(
      std::make_unique<cuda::EmulatedDevice>(cuda::EmulatedOptions()), options);
  EXPECT_OK(one.status());
  return *std::move(one);
}

TrialShape Shape(WeightType weights) {
  return {.name = "Ranks",
          .hidden = 64,
          .heads = 8,
          .kv_heads = 4,
          .head_dim = 32,
          .feed_forward = 256,
          .vocabulary = 70,
          .weights = weights,
          .bias = true,
          .seed = 9};
}

// Prompts and a decode in one step.
void ExpectEqualBits(const NumericsOptions& numerics, WeightType weights) {
  const std::vector<TrialSequence> sequences = {{0, 3}, {5, 1}};
  const CudaOptions options = {.numerics = numerics};
  const auto one = MakeOne(options);
  const TrialResult expected = OpTrial(*one, Shape(weights)).Run(sequences);
  for (const int count : {2, 4}) {
    EmulatedRanks ranks(count);
    const auto backend = ranks.Make(options);
    EXPECT_EQ(backend->NumericsClass(weights), one->NumericsClass(weights));
    const TrialResult actual = OpTrial(*backend, Shape(weights)).Run(sequences);
    for (const auto& [phase, bits] : expected) {
      EXPECT_EQ(bits, actual.at(phase)) << phase << ", " << count << " ranks";
    }
  }
}

TEST(CudaRanksTest, TensorCoresGiveTheBitsOfOneDevice) {
  ExpectEqualBits({ActivationType::kBf16, DType::kBf16}, WeightType::kBf16);
}

TEST(CudaRanksTest, FourBitsGiveTheBitsOfOneDevice) {
  ExpectEqualBits({ActivationType::kBf16, DType::kBf16}, WeightType::kQ4_0);
}

TEST(CudaRanksTest, ChainsGiveTheBitsOfOneDevice) {
  ExpectEqualBits({ActivationType::kFp32, DType::kFp32}, WeightType::kFp32);
}

constexpr int32_t kTokens = 8;  // of a step

SequenceSpec SpecOf(SequenceId id, std::vector<TokenId> prompt) {
  SequenceSpec spec;
  spec.id = id;
  spec.prompt = std::make_shared<const std::vector<TokenId>>(std::move(prompt));
  spec.sampling.temperature = id % 2 == 0 ? 0 : 1;
  spec.sampling.seed = 7;
  spec.sampling.logprob_count = 3;
  return spec;
}

// A random model on some backend, and two sequences of it.
class RankedModel {
 public:
  RankedModel(const std::string& directory, Backend* backend) {
    ModelOptions options;
    options.memory.max_step_tokens = kTokens;
    options.memory.max_logits_rows = 2;
    auto model = LoadModel(directory, options, backend);
    EXPECT_OK(model.status());
    model_ = *std::move(model);
    auto runner = ShardRunner::Create(model_.get(), backend,
                                      {.block_count = 4,
                                       .max_step_tokens = kTokens,
                                       .max_logits_rows = 2,
                                       .max_in_flight = 2});
    EXPECT_OK(runner.status());
    runner_ = *std::move(runner);
    runner_->AddSequence(SpecOf(0, {1, 9, 14, 27, 5}));
    runner_->AddSequence(SpecOf(1, {3, 30}));
  }

  const LoadedModel& model() const { return *model_; }
  const ShardRunner& runner() const { return *runner_; }

  // The prompts, then `decodes` steps of both.
  absl::StatusOr<std::vector<ScoredToken>> Run(int decodes) {
    std::vector<ScoredToken> all;
    std::vector<PlanRow> rows = {Row(0, 0, {1, 9, 14, 27, 5}),
                                 Row(1, 0, {3, 30})};
    for (int i = 0; i <= decodes; ++i) {
      BatchPlan plan;
      plan.step = i;
      plan.rows = rows;
      CARAVAN_RETURN_IF_ERROR(runner_->Launch(std::move(plan)));
      CARAVAN_ASSIGN_OR_RETURN(const StepResult result, runner_->Collect());
      for (size_t r = 0; r < rows.size(); ++r) {
        CARAVAN_RETURN_IF_ERROR(result.rows[r].status);
        all.push_back(*result.rows[r].token);
        const int32_t next = rows[r].first_position +
                             static_cast<int32_t>(rows[r].tokens.size());
        rows[r] = Row(rows[r].sequence, next, {all.back().token_id});
        rows[r].output_position = i + 1;
      }
    }
    return all;
  }

 private:
  static PlanRow Row(SequenceId id, int32_t position,
                     std::vector<TokenId> tokens) {
    PlanRow row;
    row.sequence = id;
    row.first_position = position;
    row.tokens = std::move(tokens);
    row.blocks = {2 * static_cast<BlockId>(id)};
    row.sample = true;
    return row;
  }

  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<ShardRunner> runner_;
};

class CudaRankedModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    RandomModelOptions options;
    options.shape = "tiny-wide";
    options.dtype = DType::kBf16;
    ASSERT_OK(WriteRandomModel(directory_.path(), options));
  }

  std::vector<ScoredToken> Run(Backend* backend) {
    RankedModel model(directory_.path(), backend);
    const MemoryPlan& plan = model.model().description.plan;
    EXPECT_EQ(model.model().weights.bytes, plan.weight_bytes);
    EXPECT_EQ(model.runner().arena_bytes(), plan.arena_bytes);
    EXPECT_EQ(backend->scratch_bytes(), plan.scratch_bytes);
    EXPECT_EQ(model.runner().kv_bytes(),
              backend->KvBytes(KvSpecOf(model.model().description.config, 4)));
    auto tokens = model.Run(/*decodes=*/2);
    EXPECT_OK(tokens.status());
    return *std::move(tokens);
  }

  static void ExpectSame(const std::vector<ScoredToken>& a,
                         const std::vector<ScoredToken>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i] == b[i]) << i;
  }

  caravan::testing::TemporaryDirectory directory_;
};

TEST_F(CudaRankedModelTest, TokensAndLogprobsAreThoseOfOneDevice) {
  const auto one = MakeOne({});
  const std::vector<ScoredToken> expected = Run(one.get());
  for (const int count : {2, 4}) {
    SCOPED_TRACE(count);
    EmulatedRanks ranks(count);
    const auto backend = ranks.Make({});
    ExpectSame(Run(backend.get()), expected);
    EXPECT_GT(ranks.device(0).counts().replays, 0);
  }
}

TEST_F(CudaRankedModelTest, WhereNoGraphHoldsAGatherLaunchesAreDirect) {
  EmulatedRanks ranks(2);
  const auto backend = ranks.Make({});
  const std::vector<ScoredToken> expected = Run(backend.get());
  EmulatedRanks cut(2);
  const auto direct = cut.Make({}, /*gathers_in_graphs=*/false);
  ExpectSame(Run(direct.get()), expected);
}

TEST_F(CudaRankedModelTest, APlannerPlansForAllRanks) {
  EmulatedRanks ranks(2);
  const auto backend = ranks.Make({});
  RankOptions options;
  options.ranks = 2;
  options.threads = 2;
  options.nodes = {AllowedCores()};
  options.make_rank = [](int, bool) {
    CudaOptions cuda;
    cuda.ranks = 2;
    return MakeCudaPlanner(cuda);
  };
  ASSERT_OK_AND_ASSIGN(const auto planner, RankBackend::Create(options));
  const auto plan_of = [this](const Backend& backend) {
    return DescribeModel(directory_.path(), {}, backend)->plan;
  };
  EXPECT_EQ(plan_of(*planner).fixed_bytes(), plan_of(*backend).fixed_bytes());
  EXPECT_EQ(plan_of(*planner).kv_block_bytes, plan_of(*backend).kv_block_bytes);
}

TEST_F(CudaRankedModelTest, ADeviceThatFailsEndsTheStepsOfAllRanks) {
  for (const size_t failing : {0, 1}) {
    EmulatedRanks ranks(2);
    const auto backend = ranks.Make({});
    RankedModel model(directory_.path(), backend.get());
    ranks.device(failing).FailAfterLaunches(9);
    EXPECT_THAT(model.Run(/*decodes=*/1).status(),
                HasReason(Reason::kInternal, HasSubstr("injected")));
  }
}

TEST(CudaRanksTest, WhatRanksCannotDoIsRefusedByName) {
  cuda::EmulatedOptions options;
  options.library.emplace();
  CudaOptions cuda;
  cuda.ranks = 2;
  cuda.profile = CudaProfile::kFast;
  EXPECT_THAT(cuda::MakeBackendOn(
                  std::make_unique<cuda::EmulatedDevice>(options), cuda),
              HasReason(Reason::kUnsupportedParameter, HasSubstr("--ranks=2")));
}

}  // namespace
}  // namespace caravan::worker
