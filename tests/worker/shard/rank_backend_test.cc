#include "worker/shard/rank_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/worker/ops/op_trial.h"
#include "tests/worker/shard/two_sequences.h"
#include "worker/model/memory_plan.h"
#include "worker/model/model_loader.h"
#include "worker/model/random_model.h"
#include "worker/ops/cpu/cpu_backend.h"
#include "worker/ops/reference/reference_backend.h"
#include "worker/shard/rank_slices.h"
#include "worker/shard/shard_runner.h"

namespace caravan::worker {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

RankOptions Options(int ranks, const NumericsOptions& numerics) {
  RankOptions options;
  options.ranks = ranks;
  options.threads = ranks;
  options.numerics = numerics;
  options.nodes = {AllowedCores()};
  options.make_rank = [numerics](int threads, bool pin) {
    return MakeCpuBackend(
        {.numerics = numerics, .threads = threads, .pin = pin});
  };
  return options;
}

std::unique_ptr<RankBackend> MakeRanks(const RankOptions& options) {
  auto backend = RankBackend::Create(options);
  EXPECT_OK(backend);
  return *std::move(backend);
}

std::unique_ptr<Backend> MakeWhole(const NumericsOptions& numerics) {
  auto backend = MakeCpuBackend({.numerics = numerics, .threads = 1});
  EXPECT_OK(backend);
  return *std::move(backend);
}

// All phases of a layer with eight key-value heads.
testing::TrialShape EightHeads(WeightType weights) {
  testing::TrialShape shape;
  shape.name = std::string(Name(weights));
  shape.hidden = 256;
  shape.heads = 16;
  shape.kv_heads = 8;
  shape.head_dim = InfoOf(weights).elements > 32 ? 128 : 32;
  shape.feed_forward = InfoOf(weights).elements > 64 ? 2048 : 512;
  shape.vocabulary = 300;
  shape.weights = weights;
  return shape;
}

struct Class {
  WeightType weights;
  NumericsOptions numerics;
};

class RankBackendTest : public ::testing::TestWithParam<Class> {
 protected:
  void ExpectEqualBits(testing::TrialShape shape,
                       std::initializer_list<int> counts) {
    const NumericsOptions numerics = GetParam().numerics;
    const std::vector<testing::TrialSequence> step = {
        {.past = 20, .tokens = 1},
        {.past = 0, .tokens = 9},
        {.past = 270, .tokens = 1}};
    for (const bool bias : {false, true}) {
      shape.bias = bias;
      const auto whole = MakeWhole(numerics);
      const testing::TrialResult expected =
          testing::OpTrial(*whole, shape).Run(step);
      for (const int count : counts) {
        const auto ranks = MakeRanks(Options(count, numerics));
        const testing::TrialResult result =
            testing::OpTrial(*ranks, shape).Run(step);
        for (const auto& [phase, bits] : expected) {
          EXPECT_EQ(result.at(phase), bits) << phase << " of " << count;
        }
      }
    }
  }
};

TEST_P(RankBackendTest, EveryPhaseHasTheBitsOfOneRank) {
  ExpectEqualBits(EightHeads(GetParam().weights), {2, 4, 8});
}

// Of weights without blocks, which odd sizes would cut.
class PlainRankBackendTest : public RankBackendTest {};

TEST_P(PlainRankBackendTest, UnevenSegmentsPartOnTheirOwnBorders) {
  testing::TrialShape shape = EightHeads(GetParam().weights);
  shape.heads = 12;
  shape.kv_heads = 4;
  shape.head_dim = 10;
  shape.feed_forward = 421;
  shape.hidden = 77;
  ExpectEqualBits(shape, {2, 4});
}

constexpr Class kFp32 = {WeightType::kFp32, {}};
constexpr Class kBf16OfFp32 = {WeightType::kBf16,
                               {ActivationType::kFp32, DType::kFp32}};
constexpr Class kBf16 = {WeightType::kBf16,
                         {ActivationType::kBf16, DType::kBf16}};

std::string NameOf(const ::testing::TestParamInfo<Class>& info) {
  return std::string(Name(info.param.weights)) + "_" +
         std::string(Name(info.param.numerics.activations));
}

INSTANTIATE_TEST_SUITE_P(Classes, PlainRankBackendTest,
                         ::testing::Values(kFp32, kBf16OfFp32, kBf16), NameOf);

INSTANTIATE_TEST_SUITE_P(
    Classes, RankBackendTest,
    ::testing::Values(
        kFp32, kBf16OfFp32, kBf16,
        Class{WeightType::kQ8_0, {ActivationType::kInt8, DType::kBf16}},
        Class{WeightType::kNf4, {ActivationType::kFp32, DType::kBf16}},
        Class{WeightType::kQ4_K, {ActivationType::kInt8, DType::kFp16}}),
    NameOf);

TEST(RanksTest, ReferenceBackendsMakeRanksToo) {
  RankOptions options = Options(4, {});
  options.make_rank = [](int, bool) {
    return MakeReferenceBackend(NumericsOptions());
  };
  testing::TrialShape shape = EightHeads(WeightType::kFp32);
  shape.feed_forward = 301;
  const std::vector<testing::TrialSequence> step = {{.past = 3, .tokens = 2}};
  const auto ranks = MakeRanks(options);
  const auto whole = MakeWhole({});
  EXPECT_EQ(testing::OpTrial(*ranks, shape).Run(step),
            testing::OpTrial(*whole, shape).Run(step));
}

// Tokens, logprobs and prompt scores of a model directory.
class RankedModelTest : public ::testing::Test {
 protected:
  static std::vector<ScoredToken> Run(const std::string& directory,
                                      Backend* backend) {
    auto model = LoadModel(directory, ModelOptions(), backend);
    EXPECT_OK(model);
    auto runner = ShardRunner::Create(model->get(), backend,
                                      {.block_count = 8,
                                       .max_step_tokens = 64,
                                       .max_logits_rows = 16,
                                       .max_in_flight = 2});
    EXPECT_OK(runner);
    const MemoryPlan plan =
        MakeMemoryPlan((*model)->description.config,
                       PlannedDType((*model)->description.config), *backend,
                       {.max_step_tokens = 64, .max_logits_rows = 16});
    EXPECT_EQ((*model)->weights.bytes, plan.weight_bytes);
    EXPECT_EQ((*runner)->kv_bytes(),
              backend->KvBytes(KvSpecOf((*model)->description.config, 8)));
    EXPECT_EQ(backend->scratch_bytes(), plan.scratch_bytes);
    return RunTwoSequences(**runner, (*model)->description.config.vocab_size,
                           /*new_tokens=*/12);
  }

  // Each rank took what was planned for it, and all of them what all did.
  static void ExpectPlanned(const std::string& directory,
                            const RankBackend& ranks) {
    const auto model = DescribeModel(directory, ModelOptions(), ranks);
    ASSERT_OK(model);
    EXPECT_OK(ranks.CheckModel(model->config.kv_heads, model->matrices));
    const KvSpec kv = KvSpecOf(model->config, 8);
    RankMemory sum;
    for (int rank = 0; rank < ranks.ranks(); ++rank) {
      const RankMemory own = ranks.Allocated(rank);
      EXPECT_EQ(own, ranks.Planned(rank, model->matrices, kv,
                                   ScratchSpecOf(model->config, 64, 16)));
      sum.weight_bytes += own.weight_bytes;
      sum.kv_bytes += own.kv_bytes;
    }
    size_t matrices = 0;
    for (const MatrixShape& matrix : model->matrices) {
      matrices += ranks.PackedBytes(matrix.parts, matrix.spec);
    }
    EXPECT_EQ(sum.weight_bytes, matrices);
    EXPECT_EQ(sum.kv_bytes, ranks.KvBytes(kv));
  }

  static void ExpectSame(const std::vector<ScoredToken>& a,
                         const std::vector<ScoredToken>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(SameBits(a[i], b[i]));
  }
};

TEST_F(RankedModelTest, OneTwoFourAndEightRanksGiveEqualBits) {
  const caravan::testing::TemporaryDirectory directory;
  RandomModelOptions options;
  options.shape = "tiny-wide";
  options.dtype = DType::kFp32;
  ASSERT_OK(WriteRandomModel(directory.path(), options));
  const auto whole = MakeWhole({});
  const std::vector<ScoredToken> expected = Run(directory.path(), whole.get());
  for (const int count : {2, 4, 8}) {
    RankOptions rank_options = Options(count, {});
    rank_options.threads = count + 1;  // one rank has two
    const auto ranks = MakeRanks(rank_options);
    EXPECT_EQ(ranks->NumericsClass(DType::kFp32),
              whole->NumericsClass(DType::kFp32));
    ExpectSame(Run(directory.path(), ranks.get()), expected);
    ExpectPlanned(directory.path(), *ranks);
  }
}

TEST_F(RankedModelTest, TiedTableIsLookedUpWhereItsRowsAre) {
  const std::string directory =
      caravan::testing::RepositoryPath("tests/data/tiny/tied");
  const auto whole = MakeWhole({});
  const auto ranks = MakeRanks(Options(2, {}));
  ExpectSame(Run(directory, ranks.get()), Run(directory, whole.get()));
}

// Matrices of two layers, of whose second the down projection is of `down`.
std::vector<MatrixShape> LlamaMatrices(int32_t heads, int32_t kv_heads,
                                       int32_t feed_forward, WeightType down) {
  ModelConfig config;
  config.layers = 2;
  config.hidden_size = 2048;
  config.vocab_size = 320;
  config.heads = heads;
  config.kv_heads = kv_heads;
  config.head_dim = 64;
  config.intermediate_size = feed_forward;
  const auto types = [down](const std::string& name) {
    return name == "model.layers.1.mlp.down_proj.weight" ? down
                                                         : WeightType::kBf16;
  };
  return MatrixShapes(config, types, *MakeWhole({}));
}

TEST(CheckRanksTest, SplitsThatNoBorderAllowsAreRefusedByName) {
  const auto bf16 = LlamaMatrices(32, 4, 5632, WeightType::kBf16);
  EXPECT_OK(CheckRanks(4, bf16, ActivationType::kFp32, 4));
  EXPECT_THAT(
      CheckRanks(4, bf16, ActivationType::kFp32, 3),
      caravan::testing::HasReason(Reason::kInvalidField,
                                  HasSubstr("--ranks must be 1, 2, 4 or 8")));
  EXPECT_THAT(CheckRanks(4, bf16, ActivationType::kFp32, 8),
              caravan::testing::HasReason(
                  Reason::kInvalidField,
                  HasSubstr("a divisor of num_key_value_heads = 4")));
}

TEST(CheckRanksTest, EachMatrixIsCheckedWithItsOwnType) {
  const auto blocks = LlamaMatrices(32, 4, 5632, WeightType::kQ4_K);
  EXPECT_OK(CheckRanks(4, blocks, ActivationType::kInt8, 2));
  EXPECT_THAT(CheckRanks(4, blocks, ActivationType::kInt8, 4),
              caravan::testing::HasReason(
                  Reason::kInvalidField,
                  AllOf(HasSubstr("5632 columns of q4_k"),
                        HasSubstr("model.layers.1.mlp.down_proj.weight"))));
  // Where only other matrices are of that type nothing is in the way.
  auto others = LlamaMatrices(32, 4, 5632, WeightType::kBf16);
  for (MatrixShape& matrix : others) {
    if (matrix.spec.kind != PackKind::kQkv) continue;
    for (RawMatrix& part : matrix.parts) part.type = WeightType::kQ4_K;
  }
  EXPECT_OK(CheckRanks(4, others, ActivationType::kInt8, 4));
}

TEST(CheckRanksTest, BackendNeedsAThreadForEachRank) {
  RankOptions options = Options(4, {});
  options.threads = 3;
  EXPECT_THAT(
      RankBackend::Create(options),
      caravan::testing::HasReason(Reason::kInvalidField,
                                  HasSubstr("--threads must be at least")));
}

}  // namespace
}  // namespace caravan::worker
