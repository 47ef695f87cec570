// Matrices of 4 bits on tensor cores: where codes lie, and the bits of the
// bf16 matrix whose weights are the rounded values.
#include "worker/ops/cuda/kernels/four_bit.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/worker/ops/cuda/emulated_device.h"
#include "tests/worker/ops/op_trial.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker::cuda {
namespace {

using ::caravan::worker::testing::Bits;
using ::caravan::worker::testing::BitsOf;
using ::caravan::worker::testing::Floats;
using ::caravan::worker::testing::TrialMatrix;

constexpr WeightType kTypes[] = {WeightType::kQ4_0, WeightType::kQ4_1,
                                 WeightType::kIq4Nl, WeightType::kNf4,
                                 WeightType::kFp4};

std::unique_ptr<Backend> MakeBackend(bool wgmma = false) {
  CudaOptions options;
  options.numerics = {ActivationType::kBf16, DType::kBf16};
  options.staging_bytes = 1024;  // so that matrices come in several pieces
  options.check_columns = 48;
  return *MakeBackendOn(
      std::make_unique<EmulatedDevice>(EmulatedOptions{.wgmma = wgmma}),
      options);
}

// The matrix of bf16 that a matrix of another type is the same as.
class Rounded {
 public:
  explicit Rounded(const RawMatrix& source) : source_(source) {
    std::vector<float> row(static_cast<size_t>(source.cols));
    for (int64_t r = 0; r < source.rows; ++r) {
      DequantizeRow(source, r, row.data());
      for (const float value : row) values_.push_back(ToBf16(value));
    }
  }
  RawMatrix raw() const {
    return {reinterpret_cast<const std::byte*>(values_.data()), DType::kBf16,
            source_.rows, source_.cols};
  }

 private:
  const RawMatrix source_;
  std::vector<Bf16> values_;
};

// x += w a for seeded activations of `tokens`.
Bits Project(Backend& backend, const RawMatrix& w, PackKind kind,
             int64_t tokens) {
  const auto packed = backend.Pack({&w, 1}, {kind, 32});
  EXPECT_OK(packed.status());
  EXPECT_EQ((*packed)->bytes, backend.PackedBytes({&w, 1}, {kind, 32}));
  std::mt19937 random(3);
  std::vector<float> a = Floats(random, tokens * w.cols, 1.0f);
  std::vector<float> x = Floats(random, tokens * w.rows, 1.0f);
  EXPECT_OK(
      backend.ProjectAdd({.a = View<const float>(a.data(), tokens, w.cols),
                          .w = packed->get(),
                          .bias = {},
                          .x = View<float>(x.data(), tokens, w.rows)}));
  return BitsOf(x);
}

Bits GateUp(Backend& backend, const std::vector<RawMatrix>& parts,
            int64_t tokens) {
  const auto packed = backend.Pack(parts, {PackKind::kGateUp, 32});
  EXPECT_OK(packed.status());
  const int64_t columns = parts[0].cols;
  std::mt19937 random(4);
  std::vector<float> x = Floats(random, tokens * columns, 1.0f);
  const std::vector<float> norm = Floats(random, columns, 1.0f);
  std::vector<float> out(static_cast<size_t>(tokens * parts[0].rows));
  EXPECT_OK(backend.NormGateUpSilu(
      {.x = View<const float>(x.data(), tokens, columns),
       .norm = norm,
       .epsilon = 1e-5f,
       .gate_up = packed->get(),
       .gate_bias = {},
       .up_bias = {},
       .out = View<float>(out.data(), tokens, parts[0].rows)}));
  return BitsOf(out);
}

class FourBitTest : public ::testing::TestWithParam<WeightType> {};

TEST_P(FourBitTest, ProductsHaveTheBitsOfTheRoundedMatrix) {
  const auto backend = MakeBackend();
  std::mt19937 random(1);
  const TrialMatrix matrix(random, GetParam(), 37, 576);
  const Rounded rounded(matrix.raw());
  for (const int64_t tokens : {1, 9, 25}) {
    for (const PackKind kind : {PackKind::kGroupSegments, PackKind::kHead}) {
      EXPECT_EQ(Project(*backend, matrix.raw(), kind, tokens),
                Project(*backend, rounded.raw(), kind, tokens));
    }
  }
}

TEST_P(FourBitTest, ProductsOfTheMachineHaveTheBitsOfTheRoundedMatrix) {
  CudaOptions options;
  options.numerics = {ActivationType::kBf16, DType::kBf16};
  const auto backend = MakeCudaBackend(options);
  if (!backend.ok()) GTEST_SKIP() << backend.status().message();
  std::mt19937 random(8);
  const TrialMatrix matrix(random, GetParam(), 300, 2048);
  const Rounded rounded(matrix.raw());
  for (const int64_t tokens : {1, 16, 200}) {
    EXPECT_EQ(
        Project(**backend, matrix.raw(), PackKind::kGroupSegments, tokens),
        Project(**backend, rounded.raw(), PackKind::kGroupSegments, tokens));
  }
}

TEST_P(FourBitTest, GateAndUpLieSideBySide) {
  const auto backend = MakeBackend();
  std::mt19937 random(2);
  const TrialMatrix gate(random, GetParam(), 19, 64);
  const TrialMatrix up(random, GetParam(), 19, 64);
  const Rounded rounded_gate(gate.raw());
  const Rounded rounded_up(up.raw());
  EXPECT_EQ(GateUp(*backend, {gate.raw(), up.raw()}, 3),
            GateUp(*backend, {rounded_gate.raw(), rounded_up.raw()}, 3));
}

TEST_P(FourBitTest, LargeStepsBesideWgmmaHaveTheSameBits) {
  std::mt19937 random(1);
  const TrialMatrix matrix(random, GetParam(), 16, 64);
  const Rounded rounded(matrix.raw());
  const auto backend = MakeBackend(/*wgmma=*/true);
  EXPECT_EQ(Project(*backend, matrix.raw(), PackKind::kHead, 66),
            Project(*backend, rounded.raw(), PackKind::kHead, 66));
}

TEST_P(FourBitTest, EmbeddingsAreReadFromCodesToTheirFp32Value) {
  const auto backend = MakeBackend();
  std::mt19937 random(5);
  const TrialMatrix matrix(random, GetParam(), 20, 128);
  const RawMatrix raw = matrix.raw();
  const auto packed = *backend->Pack({&raw, 1}, {PackKind::kHead, 32});
  const std::vector<int32_t> ids = {19, 0, 8, 7};
  std::vector<float> x(ids.size() * raw.cols);
  ASSERT_OK(backend->Embed(
      {.ids = ids, .table = packed.get(), .x = {x.data(), 4, raw.cols}}));
  std::vector<float> expected(static_cast<size_t>(raw.cols));
  for (size_t i = 0; i < ids.size(); ++i) {
    DequantizeRow(raw, ids[i], expected.data());
    EXPECT_EQ(std::memcmp(expected.data(), x.data() + i * raw.cols,
                          expected.size() * 4),
              0);
  }
}

TEST_P(FourBitTest, MatricesTakeABlockAGroup) {
  std::mt19937 random(6);
  const TrialMatrix matrix(random, GetParam(), 64, 1024);
  const RawMatrix raw = matrix.raw();
  FourBitFormat format;
  ASSERT_TRUE(FourBitFormatOf(GetParam(), format));
  // 16 bytes of codes, and the scales.
  EXPECT_EQ(MakeBackend()->PackedBytes({&raw, 1}, {PackKind::kHead, 32}),
            size_t{64} * 32 * (16 + format.scale_bytes()));
}

INSTANTIATE_TEST_SUITE_P(Types, FourBitTest, ::testing::ValuesIn(kTypes),
                         [](const auto& info) {
                           return std::string(InfoOf(info.param).name);
                         });

TEST(FourBitLayoutTest, EveryWeightHasANibbleInItsLane) {
  constexpr int64_t kSteps = 3;
  std::set<int64_t> places;
  for (int64_t row = 0; row < 32; ++row) {
    for (int64_t step = 0; step < kSteps; ++step) {
      for (int quad = 0; quad < 4; ++quad) {
        for (int n = 0; n < 8; ++n) {
          const int64_t word = CodeWord(row, step, quad, kSteps);
          places.insert(word * 8 + n);
          // The lane is the one that has the element in operand A.
          const int64_t k = step * 32 + CodeColumn(quad, n);
          EXPECT_EQ(word / 2 % 32, WeightOffset(row, k, 32 * kSteps) / 8 % 32);
        }
      }
    }
  }
  EXPECT_EQ(places.size(), size_t{32 * 32 * kSteps});
  EXPECT_EQ(*places.rbegin(), int64_t{32 * 32 * kSteps} - 1);
}

TEST(FourBitLayoutTest, SegmentsWithinAGroupKeepPlainRows) {
  const auto backend = MakeBackend();
  std::mt19937 random(7);
  const TrialMatrix matrix(random, WeightType::kQ4_0, 8, 320);
  const RawMatrix raw = matrix.raw();
  // Heads of 40: borders inside of groups, so fp32 rows as before.
  EXPECT_EQ(backend->PackedBytes({&raw, 1}, {PackKind::kHeadSegments, 40}),
            size_t{8} * 320 * 4);
}

TEST(FourBitLayoutTest, OtherTypesHaveNoFormat) {
  FourBitFormat format;
  EXPECT_FALSE(FourBitFormatOf(WeightType::kQ4_K, format));
  EXPECT_FALSE(FourBitFormatOf(WeightType::kBf16, format));
}

}  // namespace
}  // namespace caravan::worker::cuda
