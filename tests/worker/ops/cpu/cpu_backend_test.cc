// The contract of backends, checked for the cpu backend: every instruction set
// and number of threads gives the reference's bits, whatever else is in the
// step.
#include "worker/ops/cpu/cpu_backend.h"

#include <gtest/gtest.h>

#include <iostream>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/worker/ops/op_trial.h"
#include "worker/ops/reference/reference_backend.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker {
namespace {

using testing::OpTrial;
using testing::TrialResult;
using testing::TrialSequence;
using testing::TrialShape;

std::unique_ptr<Backend> Reference() {
  return *MakeReferenceBackend(NumericsOptions());
}

std::unique_ptr<Backend> Cpu(CpuIsa isa, int threads) {
  auto backend =
      MakeCpuBackend({.numerics = {}, .threads = threads, .isa = isa});
  EXPECT_OK(backend.status());
  return *std::move(backend);
}

void ExpectEqual(const TrialResult& expected, const TrialResult& actual) {
  for (const auto& [phase, bits] : expected) {
    ASSERT_EQ(bits.size(), actual.at(phase).size()) << phase;
    for (size_t i = 0; i < bits.size(); ++i) {
      ASSERT_EQ(bits[i], actual.at(phase)[i]) << phase << " element " << i;
    }
  }
}

std::vector<TrialShape> Shapes() {
  return {
      {.name = "Gqa"},
      {.name = "Bf16Bias",
       .weights = WeightType::kBf16,
       .bias = true,
       .seed = 2},
      {.name = "Fp16", .weights = WeightType::kFp16, .seed = 3},
      {.name = "MhaHead100",
       .hidden = 100,
       .heads = 3,
       .kv_heads = 3,
       .head_dim = 100,
       .feed_forward = 172,
       .vocabulary = 97,
       .weights = WeightType::kBf16,
       .seed = 4},
      {.name = "MqaHead8",
       .hidden = 56,
       .heads = 7,
       .kv_heads = 1,
       .head_dim = 8,
       .feed_forward = 33,
       .vocabulary = 65,
       .weights = WeightType::kBf16,
       .bias = true,
       .seed = 5},
      {.name = "Head128Group8",
       .hidden = 192,
       .heads = 8,
       .kv_heads = 1,
       .head_dim = 128,
       .feed_forward = 300,
       .vocabulary = 200,
       .weights = WeightType::kFp16,
       .bias = true,
       .seed = 6},
      {.name = "OddEverything",
       .hidden = 37,
       .heads = 5,
       .kv_heads = 5,
       .head_dim = 6,
       .feed_forward = 11,
       .vocabulary = 3,
       .weights = WeightType::kBf16,
       .seed = 7},
      {.name = "Head64",
       .hidden = 128,
       .heads = 4,
       .kv_heads = 2,
       .head_dim = 64,
       .feed_forward = 256,
       .vocabulary = 128,
       .weights = WeightType::kFp32,
       .bias = true,
       .seed = 8},
  };
}

using Parameters = std::tuple<TrialShape, CpuIsa, int>;

class CpuBackendContract : public ::testing::TestWithParam<Parameters> {
 protected:
  const TrialShape& shape() const { return std::get<0>(GetParam()); }
  std::unique_ptr<Backend> cpu() const {
    return Cpu(std::get<1>(GetParam()), std::get<2>(GetParam()));
  }

  void ExpectReferenceBits(const std::vector<TrialSequence>& sequences) {
    const std::unique_ptr<Backend> reference = Reference();
    const std::unique_ptr<Backend> backend = cpu();
    OpTrial expected(*reference, shape());
    OpTrial actual(*backend, shape());
    ExpectEqual(expected.Run(sequences), actual.Run(sequences));
  }
};

TEST_P(CpuBackendContract, OneTokenHasTheReferenceBits) {
  ExpectReferenceBits({{.past = 0, .tokens = 1}});
  ExpectReferenceBits({{.past = 40, .tokens = 1}});
}

TEST_P(CpuBackendContract, SevenSequencesHaveTheReferenceBits) {
  ExpectReferenceBits({{0, 1}, {15, 1}, {16, 1}, {17, 2}, {255, 1}, {0, 1}});
}

TEST_P(CpuBackendContract, SixtyFourTokensHaveTheReferenceBits) {
  ExpectReferenceBits({{0, 33}, {20, 31}});
}

TEST_P(CpuBackendContract, SplitBordersHaveTheReferenceBits) {
  ExpectReferenceBits({{254, 5}, {300, 1}});
}

TEST_P(CpuBackendContract, AnEmptyStepIsNothing) {
  const std::unique_ptr<Backend> backend = cpu();
  OpTrial trial(*backend, shape());
  for (const auto& [phase, bits] : trial.Step({})) EXPECT_TRUE(bits.empty());
}

TEST_P(CpuBackendContract, ChunksOfAPromptGiveTheBitsOfTheWhole) {
  const std::unique_ptr<Backend> backend = cpu();
  OpTrial whole(*backend, shape());
  const TrialResult expected = whole.Step({{0, 70}});
  OpTrial cut(*backend, shape());
  cut.Step({{0, 1}});
  cut.Step({{1, 7}});
  const TrialResult actual = cut.Step({{8, 62}});
  const testing::Bits& all = expected.at("down");
  const testing::Bits& end = actual.at("down");
  ASSERT_EQ(end.size(), 62u * shape().hidden);
  EXPECT_TRUE(std::equal(end.begin(), end.end(), all.end() - end.size()));
}

TEST_P(CpuBackendContract, ARowAloneHasTheBitsOfTheRowAmongMany) {
  const std::unique_ptr<Backend> backend = cpu();
  OpTrial many(*backend, shape());
  std::vector<TrialSequence> sequences(31, {.past = 3, .tokens = 1});
  sequences[0] = {.past = 290, .tokens = 1};
  const TrialResult together = many.Run(sequences);
  OpTrial one(*backend, shape());
  const TrialResult alone = one.Run({sequences[0]});
  for (const auto& [phase, bits] : alone) {
    EXPECT_TRUE(
        std::equal(bits.begin(), bits.end(), together.at(phase).begin()))
        << phase;
  }
}

std::string TestName(const ::testing::TestParamInfo<Parameters>& info) {
  return std::get<0>(info.param).name + "_" + Name(std::get<1>(info.param)) +
         "_" + std::to_string(std::get<2>(info.param));
}

// Rounded activations and caches: the reference's bits too.
class RoundedClasses : public ::testing::TestWithParam<CpuIsa> {};

TEST_P(RoundedClasses, HaveTheReferenceBitsOneRowAndMany) {
  const std::vector<TrialSequence> steps[] = {{{40, 1}},
                                              {{254, 5}, {17, 2}, {0, 9}}};
  for (const NumericsOptions& numerics :
       {NumericsOptions{ActivationType::kBf16, DType::kBf16},
        NumericsOptions{ActivationType::kFp32, DType::kFp16}}) {
    const std::unique_ptr<Backend> reference = *MakeReferenceBackend(numerics);
    for (const TrialShape& shape : Shapes()) {
      SCOPED_TRACE(shape.name + " " + reference->NumericsClass(shape.weights));
      OpTrial trial(*reference, shape);
      const TrialResult expected[] = {trial.Run(steps[0]), trial.Run(steps[1])};
      for (const int threads : {1, 3}) {
        const std::unique_ptr<Backend> backend = *MakeCpuBackend(
            {.numerics = numerics, .threads = threads, .isa = GetParam()});
        OpTrial actual(*backend, shape);
        ExpectEqual(expected[0], actual.Run(steps[0]));
        ExpectEqual(expected[1], actual.Run(steps[1]));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, RoundedClasses,
                         ::testing::ValuesIn(AvailableCpuIsas()),
                         [](const ::testing::TestParamInfo<CpuIsa>& info) {
                           return std::string(Name(info.param));
                         });

INSTANTIATE_TEST_SUITE_P(
    EveryInstructionSet, CpuBackendContract,
    ::testing::Combine(::testing::ValuesIn(Shapes()),
                       ::testing::ValuesIn(AvailableCpuIsas()),
                       ::testing::Values(2)),
    TestName);

INSTANTIATE_TEST_SUITE_P(
    ThreadCounts, CpuBackendContract,
    ::testing::Combine(::testing::ValuesIn(Shapes()),
                       ::testing::Values(AvailableCpuIsas().front()),
                       ::testing::Values(1, 3)),
    TestName);

TEST(CpuBackendTest, ALongContextCutBySplitsHasTheReferenceBits) {
  const TrialShape shape = {.name = "Mqa", .heads = 4, .kv_heads = 1};
  const std::vector<TrialSequence> sequences = {{.past = 1400, .tokens = 3}};
  const std::unique_ptr<Backend> reference = Reference();
  OpTrial expected(*reference, shape);
  const TrialResult bits = expected.Run(sequences);
  for (const int threads : {1, 2, 3, 8}) {
    const std::unique_ptr<Backend> backend = Cpu(CpuIsa::kAuto, threads);
    OpTrial actual(*backend, shape);
    ExpectEqual(bits, actual.Run(sequences));
  }
}

TEST(CpuBackendTest, ATiedHeadEmbedsLikeAnEmbedding) {
  std::mt19937 random(9);
  const std::unique_ptr<Backend> backend = *MakeCpuBackend(
      {.numerics = {ActivationType::kInt8, DType::kFp32}, .threads = 2});
  ASSERT_TRUE(backend->CanEmbedFromHead());
  for (const WeightType type :
       {WeightType::kFp32, WeightType::kBf16, WeightType::kFp16,
        WeightType::kQ8_0, WeightType::kQ4_1, WeightType::kQ4_K,
        WeightType::kQ6_K, WeightType::kQ2_K, WeightType::kNf4}) {
    const int64_t cols = IsPlain(type) ? 39 : 256;
    const testing::TrialMatrix table(random, type, 77, cols);
    const RawMatrix raw = table.raw();
    ASSERT_OK_AND_ASSIGN(const auto embedding,
                         backend->Pack({&raw, 1}, {PackKind::kEmbedding, 32}));
    ASSERT_OK_AND_ASSIGN(const auto head,
                         backend->Pack({&raw, 1}, {PackKind::kHead, 32}));
    const std::vector<int32_t> ids = {0, 76, 16, 63, 64};
    std::vector<float> a(static_cast<size_t>(5 * cols));
    std::vector<float> b(a.size());
    ASSERT_OK(backend->Embed({.ids = ids,
                              .table = embedding.get(),
                              .x = View<float>(a.data(), 5, cols)}));
    ASSERT_OK(backend->Embed({.ids = ids,
                              .table = head.get(),
                              .x = View<float>(b.data(), 5, cols)}));
    EXPECT_EQ(testing::BitsOf(a), testing::BitsOf(b)) << Name(type);
  }
}

TEST(CpuBackendTest, CopiedBlocksGiveTheSameAttention) {
  const TrialShape shape = {.name = "Copy"};
  const std::unique_ptr<Backend> backend = Cpu(CpuIsa::kAuto, 2);
  OpTrial trial(*backend, shape);
  trial.Step({{.past = 0, .tokens = 16}});  // block 0
  const std::vector<BlockCopy> copies = {{.source = 0, .target = 900},
                                         {.source = 900, .target = 900}};
  ASSERT_OK(backend->CopyBlocks({.copies = copies, .kv = trial.kv()}));
  std::mt19937 random(5);
  const std::vector<float> q = testing::Floats(random, 64, 1.0f);
  std::vector<float> out[2] = {std::vector<float>(64), std::vector<float>(64)};
  for (const BlockId block : {0, 900}) {
    const std::vector<BlockId> blocks = {block};
    const std::vector<AttentionRow> rows = {{.first_token = 0,
                                             .token_count = 1,
                                             .first_position = 15,
                                             .blocks = blocks}};
    ASSERT_OK(
        backend->Attend({.q = View<const float>(q.data(), 1, 64),
                         .rows = rows,
                         .layer = 1,
                         .heads = 4,
                         .kv_heads = 2,
                         .head_dim = 16,
                         .kv = trial.kv(),
                         .out = View<float>(out[block / 900].data(), 1, 64)}));
  }
  EXPECT_EQ(testing::BitsOf(out[0]), testing::BitsOf(out[1]));
  EXPECT_NE(out[0], std::vector<float>(64, 0.0f));
}

// Shapes whose columns are whole blocks.
std::vector<TrialShape> BlockShapes() {
  std::vector<TrialShape> shapes;
  for (size_t i = 0; i < kWeightTypes.size(); ++i) {
    const auto type = static_cast<WeightType>(i);
    if (HalfOffsets(type).empty()) continue;
    shapes.push_back({.name = std::string(Name(type)),
                      .hidden = 256,
                      .heads = 8,
                      .kv_heads = 2,
                      .head_dim = 32,
                      .feed_forward = 512,
                      .weights = type,
                      .bias = i % 2 == 0});
  }
  shapes.push_back({.name = "MixedQkv",
                    .hidden = 256,
                    .heads = 4,
                    .kv_heads = 2,
                    .head_dim = 64,
                    .feed_forward = 768,
                    .weights = WeightType::kQ4_K,
                    .values = WeightType::kQ6_K});
  shapes.push_back({.name = "PlainValues",
                    .hidden = 256,
                    .heads = 4,
                    .kv_heads = 2,
                    .head_dim = 64,
                    .feed_forward = 256,
                    .weights = WeightType::kQ8_0,
                    .values = WeightType::kBf16});
  // Segments of heads end inside groups of 32.
  shapes.push_back({.name = "Head40",
                    .hidden = 160,
                    .heads = 8,
                    .kv_heads = 4,
                    .head_dim = 40,
                    .feed_forward = 352,
                    .vocabulary = 33,
                    .weights = WeightType::kQ4_0,
                    .bias = true});
  return shapes;
}

std::vector<TrialShape> FourBitShapes() {
  std::vector<TrialShape> shapes;
  for (const WeightType type : {WeightType::kNf4, WeightType::kFp4}) {
    shapes.push_back({.name = std::string(Name(type)),
                      .hidden = 256,
                      .heads = 8,
                      .kv_heads = 2,
                      .head_dim = 32,
                      .feed_forward = 704,
                      .weights = type,
                      .bias = true});
  }
  // Segments of heads end inside blocks of 64; values apart from codes.
  shapes.push_back({.name = "Head40",
                    .hidden = 320,
                    .heads = 8,
                    .kv_heads = 4,
                    .head_dim = 40,
                    .feed_forward = 64,
                    .vocabulary = 33,
                    .weights = WeightType::kNf4,
                    .values = WeightType::kBf16});
  return shapes;
}

TEST(CpuBackendInt8Test, EveryBlockTypeHasTheReferenceBits) {
  const NumericsOptions numerics = {ActivationType::kInt8, DType::kBf16};
  const std::unique_ptr<Backend> reference = *MakeReferenceBackend(numerics);
  for (const TrialShape& shape : BlockShapes()) {
    SCOPED_TRACE(shape.name);
    OpTrial expected(*reference, shape);
    const std::vector<TrialSequence> sequences = {
        {.past = 20, .tokens = 1}, {.past = 0, .tokens = 53}, {3, 2}};
    const TrialResult many = expected.Run(sequences);
    const TrialResult one = expected.Run({{.past = 20, .tokens = 1}});
    for (const CpuIsa isa : AvailableCpuIsas()) {
      for (const int threads : {1, 3}) {
        const std::unique_ptr<Backend> backend = *MakeCpuBackend(
            {.numerics = numerics, .threads = threads, .isa = isa});
        OpTrial actual(*backend, shape);
        ExpectEqual(many, actual.Run(sequences));
        ExpectEqual(one, actual.Run({{.past = 20, .tokens = 1}}));
      }
    }
  }
}

// Activations of any type: products of 4-bit codes take them as they are.
TEST(CpuBackendFourBitTest, CodesOfTablesHaveTheReferenceBits) {
  const std::vector<TrialSequence> sequences = {
      {.past = 20, .tokens = 1}, {.past = 0, .tokens = 53}, {3, 2}};
  for (const TrialShape& shape : FourBitShapes()) {
    SCOPED_TRACE(shape.name);
    for (const NumericsOptions& numerics :
         {NumericsOptions{ActivationType::kFp32, DType::kFp32},
          NumericsOptions{ActivationType::kInt8, DType::kBf16}}) {
      const std::unique_ptr<Backend> reference =
          *MakeReferenceBackend(numerics);
      OpTrial expected(*reference, shape);
      const TrialResult many = expected.Run(sequences);
      const TrialResult one = expected.Run({sequences[0]});
      for (const CpuIsa isa : AvailableCpuIsas()) {
        const std::unique_ptr<Backend> backend =
            *MakeCpuBackend({.numerics = numerics, .threads = 3, .isa = isa});
        OpTrial actual(*backend, shape);
        ExpectEqual(many, actual.Run(sequences));
        ExpectEqual(one, actual.Run({sequences[0]}));
      }
    }
  }
}

TEST(CpuBackendFourBitTest, CodesOfTablesStayFourBits) {
  for (const ActivationType activations :
       {ActivationType::kFp32, ActivationType::kBf16, ActivationType::kInt8}) {
    const std::unique_ptr<Backend> backend =
        *MakeCpuBackend({.numerics = {activations, DType::kBf16}});
    constexpr int64_t kRows = 1 << 18;  // 2 MiB pages hardly count
    for (const WeightType type : {WeightType::kNf4, WeightType::kFp4}) {
      const RawMatrix part(nullptr, type, kRows, 4096);
      EXPECT_NEAR(static_cast<double>(backend->PackedBytes(
                      {&part, 1}, {PackKind::kGroupSegments, 32})),
                  kRows * 4096 * 4.5 / 8, 4e6);
    }
  }
}

TEST(CpuBackendInt8Test, BlocksStayAsSmallAsTheyAre) {
  const std::unique_ptr<Backend> backend =
      *MakeCpuBackend({.numerics = {ActivationType::kInt8, DType::kBf16}});
  const auto bytes = [&](WeightType type, PackKind kind) {
    constexpr int64_t kRows = 1 << 18;  // 2 MiB pages hardly count
    const RawMatrix part(nullptr, type, kRows, 4096);
    return static_cast<double>(backend->PackedBytes({&part, 1}, {kind, 32})) /
           static_cast<double>(kRows * RowBytes(type, 4096));
  };
  EXPECT_NEAR(bytes(WeightType::kQ8_0, PackKind::kHead), 1, 0.004);
  EXPECT_NEAR(bytes(WeightType::kQ4_0, PackKind::kGroupSegments), 1, 0.004);
  EXPECT_NEAR(bytes(WeightType::kQ4_1, PackKind::kHead), 1, 0.004);
  EXPECT_NEAR(bytes(WeightType::kQ4_K, PackKind::kHead), 1.028, 0.004);
  EXPECT_NEAR(bytes(WeightType::kQ6_K, PackKind::kEmbedding), 1, 0.004);
}

// Of a decoded token the norm and the rounding are done by every member for
// itself, so that a layer has one barrier inside qkv and five ends of phases.
TEST(CpuBackendTest, ThreadsMeetAtMostSixTimesPerLayer) {
  for (const ActivationType activations :
       {ActivationType::kFp32, ActivationType::kInt8}) {
    const std::unique_ptr<Backend> backend = *MakeCpuBackend(
        {.numerics = {activations, DType::kFp32}, .threads = 2});
    OpTrial trial(*backend, {.name = "Layer",
                             .hidden = 256,
                             .head_dim = 64,
                             .feed_forward = 512,
                             .weights = WeightType::kQ8_0});
    trial.Step({{0, 40}});
    const auto meetings = [&](const std::vector<TrialSequence>& sequences) {
      const int32_t before = Synchronizations(*backend);
      trial.Step(sequences);
      return Synchronizations(*backend) - before - 1;  // that of the head
    };
    const int32_t decode = meetings({{40, 1}});
    std::cout << Name(activations) << ": " << decode
              << " synchronization points in a layer of a decoded token, "
              << meetings({{1, 1}, {1, 1}, {1, 1}, {1, 1}})
              << " in one of four\n";
    EXPECT_LE(decode, 6);
    EXPECT_GT(decode, 0);
  }
}

TEST(CpuBackendTest, ThreadCountsOutsideTheLimitsAreRefused) {
  EXPECT_THAT(MakeCpuBackend({.numerics = {}, .threads = 0}),
              caravan::testing::HasReason(Reason::kInvalidField));
  EXPECT_THAT(MakeCpuBackend({.numerics = {}, .threads = 257}),
              caravan::testing::HasReason(Reason::kInvalidField));
}

TEST(CpuBackendTest, TheClassNamesTheInstructionSet) {
  for (const CpuIsa isa : AvailableCpuIsas()) {
    const std::string name = Name(isa);
    const CpuOptions rounded = {
        .numerics = {ActivationType::kBf16, DType::kFp16},
        .threads = 1,
        .isa = isa};
    EXPECT_EQ((*MakeCpuBackend(rounded))->NumericsClass(DType::kBf16),
              "cpu-" + name + "/w:bf16/a:bf16/kv:fp16/v1");
    // The fp32 kernels do not use what avx512bf16 has more than avx512.
    EXPECT_EQ(Cpu(isa, 1)->NumericsClass(DType::kBf16),
              "cpu-" + (name == "avx512bf16" ? "avx512" : name) +
                  "/w:bf16/a:fp32/kv:fp32/v1");
  }
}

}  // namespace
}  // namespace caravan::worker
