// 8-bit floats on tensor cores: where codes lie, products of weights and of
// activations, caches. The siblings are the bf16 matrix of the codes, and plain
// loops.
#include "worker/ops/cuda/kernels/fp8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/worker/ops/cuda/emulated_device.h"
#include "tests/worker/ops/op_trial.h"
#include "worker/ops/cpu/cpu_backend.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/reference/reference_backend.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker::cuda {
namespace {

using ::caravan::testing::HasReason;
using ::caravan::worker::testing::Bits;
using ::caravan::worker::testing::BitsOf;
using ::caravan::worker::testing::Floats;
using ::caravan::worker::testing::OpTrial;
using ::caravan::worker::testing::TrialMatrix;
using ::caravan::worker::testing::TrialResult;
using ::caravan::worker::testing::TrialSequence;
using ::caravan::worker::testing::TrialShape;
using ::testing::HasSubstr;

constexpr NumericsOptions kW8A16 = {ActivationType::kBf16, DType::kBf16};
constexpr NumericsOptions kW8A8 = {ActivationType::kFp8, DType::kFp8};
constexpr int64_t kUnit = 32;  // of segments

CudaOptions OptionsOf(const NumericsOptions& numerics) {
  CudaOptions options;
  options.numerics = numerics;
  options.staging_bytes = 1024;  // so that matrices come in several pieces
  options.check_columns = 48;
  return options;
}

std::unique_ptr<Backend> MakeBackend(const NumericsOptions& numerics) {
  return *MakeBackendOn(std::make_unique<EmulatedDevice>(EmulatedOptions()),
                        OptionsOf(numerics));
}

// A matrix of fp8 with another scale for each row.
class Fp8Rows {
 public:
  Fp8Rows(std::mt19937& random, int64_t rows, int64_t cols)
      : rows_(rows), cols_(cols) {
    const std::vector<float> values = Floats(random, rows * cols, 1.0f);
    bytes_.resize(static_cast<size_t>(RowBytes(WeightType::kFp8, rows * cols)));
    for (int64_t r = 0; r < rows; ++r) {
      QuantizeRow(WeightType::kFp8, values.data() + r * cols, cols,
                  bytes_.data() + r * RowBytes(WeightType::kFp8, cols));
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < cols; ++k) {
        codes_.push_back(ToBf16(Code(r, k)));
      }
    }
  }
  RawMatrix raw() const {
    return {bytes_.data(), WeightType::kFp8, rows_, cols_};
  }
  // The matrix of bf16 that codes are.
  RawMatrix codes() const {
    return {reinterpret_cast<const std::byte*>(codes_.data()), DType::kBf16,
            rows_, cols_};
  }
  float Code(int64_t row, int64_t k) const {
    const std::byte code = Row(row)[k / 32 * 36 + 4 + k % 32];
    return ToFloat(Fp8{std::to_integer<uint8_t>(code)});
  }
  float Scale(int64_t row) const {
    float scale = 0;
    std::memcpy(&scale, Row(row), sizeof(scale));
    return scale;
  }
  std::byte* Row(int64_t row) {
    return bytes_.data() + row * RowBytes(WeightType::kFp8, cols_);
  }
  const std::byte* Row(int64_t row) const {
    return bytes_.data() + row * RowBytes(WeightType::kFp8, cols_);
  }

 private:
  const int64_t rows_;
  const int64_t cols_;
  std::vector<std::byte> bytes_;
  std::vector<Bf16> codes_;
};

// 0 + w a, (tokens, rows).
std::vector<float> Product(Backend& backend, const RawMatrix& w,
                           const PackSpec& spec, std::vector<float> a) {
  const auto packed = backend.Pack({&w, 1}, spec);
  EXPECT_OK(packed.status());
  EXPECT_EQ((*packed)->bytes, backend.PackedBytes({&w, 1}, spec));
  const int64_t tokens = std::ssize(a) / w.cols;
  std::vector<float> x(static_cast<size_t>(tokens * w.rows));
  EXPECT_OK(
      backend.ProjectAdd({.a = View<const float>(a.data(), tokens, w.cols),
                          .w = packed->get(),
                          .bias = {},
                          .x = View<float>(x.data(), tokens, w.rows)}));
  return x;
}

std::vector<float> Activations(int64_t tokens, int64_t cols) {
  std::mt19937 random(3);
  return Floats(random, tokens * cols, 1.0f);
}

// Products with codes as bf16, then by the scales of rows.
void ExpectScaledProducts(Backend& backend, const Fp8Rows& matrix,
                          const PackSpec& spec, int64_t tokens) {
  const std::vector<float> a = Activations(tokens, matrix.raw().cols);
  std::vector<float> expected = Product(backend, matrix.codes(), spec, a);
  const int64_t rows = matrix.raw().rows;
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] *= matrix.Scale(static_cast<int64_t>(i) % rows);
  }
  EXPECT_EQ(BitsOf(Product(backend, matrix.raw(), spec, a)), BitsOf(expected));
}

TEST(Fp8ProductTest, Bf16ActivationsMeetCodesAndThenScales) {
  const auto backend = MakeBackend(kW8A16);
  std::mt19937 random(1);
  const Fp8Rows matrix(random, 37, 576);
  for (const int64_t tokens : {1, 9, 25}) {
    for (const PackKind kind : {PackKind::kGroupSegments, PackKind::kHead}) {
      ExpectScaledProducts(*backend, matrix, {kind, kUnit}, tokens);
    }
  }
}

TEST(Fp8ProductTest, SegmentsMayBeginAnywhere) {
  const auto backend = MakeBackend(kW8A16);
  std::mt19937 random(2);
  const Fp8Rows matrix(random, 20, 320);
  ExpectScaledProducts(*backend, matrix, {PackKind::kHeadSegments, 20}, 3);
}

TEST(Fp8ProductTest, LargeStepsTakeTheSameInstruction) {
  const auto backend = *MakeBackendOn(
      std::make_unique<EmulatedDevice>(EmulatedOptions{.wgmma = true}),
      OptionsOf(kW8A16));
  std::mt19937 random(2);
  const Fp8Rows matrix(random, 16, 64);
  ExpectScaledProducts(*backend, matrix, {PackKind::kHead, kUnit}, 66);
}

TEST(Fp8ProductTest, ProductsOfTheMachineHaveTheBitsOfTheCodes) {
  const auto backend = MakeCudaBackend({.numerics = kW8A16});
  if (!backend.ok()) GTEST_SKIP() << backend.status().message();
  std::mt19937 random(8);
  const Fp8Rows matrix(random, 300, 2048);
  for (const int64_t tokens : {1, 16, 60}) {
    ExpectScaledProducts(**backend, matrix, {PackKind::kGroupSegments, kUnit},
                         tokens);
  }
}

// A row's codes, and its scale last.
std::vector<float> Rounded(const float* row, int64_t cols) {
  float most = 0;
  for (int64_t k = 0; k < cols; ++k) most = std::max(most, std::fabs(row[k]));
  const float scale = Fp8Scale(most);
  std::vector<float> codes;
  for (int64_t k = 0; k < cols; ++k) {
    codes.push_back(ToFloat(ToFp8(row[k] * (1.0f / scale))));
  }
  codes.push_back(scale);
  return codes;
}

// The chain of a segment: 32 products at a time, each sum exact, then rounded.
float Segment(const std::vector<float>& x, const Fp8Rows& w, int64_t row,
              int64_t begin, int64_t end) {
  float sum = 0;
  for (int64_t k = begin; k < end; k += 32) {
    double next = sum;
    for (int64_t i = k; i < std::min(k + 32, end); ++i) {
      next += static_cast<double>(x[i]) * w.Code(row, i);
    }
    sum = static_cast<float>(next);
  }
  return sum;
}

// Products of codes with codes in one segment, then by both scales.
std::vector<float> CodeProducts(const Fp8Rows& w, const std::vector<float>& a) {
  const int64_t cols = w.raw().cols;
  std::vector<float> y;
  for (int64_t t = 0; t < std::ssize(a) / cols; ++t) {
    const std::vector<float> x = Rounded(a.data() + t * cols, cols);
    for (int64_t r = 0; r < w.raw().rows; ++r) {
      y.push_back(Segment(x, w, r, 0, cols) * x.back() * w.Scale(r));
    }
  }
  return y;
}

// The same with 8 segments of equal size.
std::vector<float> SegmentedCodeProducts(const Fp8Rows& w,
                                         const std::vector<float>& a) {
  const int64_t cols = w.raw().cols;
  std::vector<float> y;
  for (int64_t t = 0; t < std::ssize(a) / cols; ++t) {
    const std::vector<float> x = Rounded(a.data() + t * cols, cols);
    for (int64_t r = 0; r < w.raw().rows; ++r) {
      float sums[8];
      for (int s = 0; s < 8; ++s) {
        sums[s] = Segment(x, w, r, s * cols / 8, (s + 1) * cols / 8);
      }
      const float sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
                        ((sums[4] + sums[5]) + (sums[6] + sums[7]));
      y.push_back(sum * x.back() * w.Scale(r));
    }
  }
  return y;
}

TEST(Fp8ProductTest, Fp8ActivationsMeetCodesAndThenBothScales) {
  const auto backend = MakeBackend(kW8A8);
  std::mt19937 random(4);
  const Fp8Rows matrix(random, 37, 96);
  const Fp8Rows wide(random, 19, 640);  // segments of 80: padded
  for (const int64_t tokens : {1, 9, 25}) {
    const std::vector<float> a = Activations(tokens, 96);
    EXPECT_EQ(
        BitsOf(Product(*backend, matrix.raw(), {PackKind::kHead, kUnit}, a)),
        BitsOf(CodeProducts(matrix, a)));
    const std::vector<float> b = Activations(tokens, 640);
    EXPECT_EQ(
        BitsOf(Product(*backend, wide.raw(), {PackKind::kHeadSegments, 80}, b)),
        BitsOf(SegmentedCodeProducts(wide, b)));
  }
}

TEST(Fp8ProductTest, Fp8ProductsOfTheMachineAreNearTheLoop) {
  const auto backend = MakeCudaBackend({.numerics = kW8A8});
  if (!backend.ok()) GTEST_SKIP() << backend.status().message();
  std::mt19937 random(8);
  const Fp8Rows matrix(random, 300, 2048);
  for (const int64_t tokens : {1, 16, 200}) {
    const std::vector<float> a = Activations(tokens, 2048);
    const std::vector<float> expected = SegmentedCodeProducts(matrix, a);
    const std::vector<float> actual =
        Product(**backend, matrix.raw(), {PackKind::kGroupSegments, kUnit}, a);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(actual[i], expected[i], 2e-2f) << i;
    }
  }
}

TEST(Fp8ProductTest, RowsOfZerosAndOfNanStayWhatTheyAre) {
  const auto backend = MakeBackend(kW8A8);
  std::mt19937 random(4);
  const Fp8Rows matrix(random, 16, 64);
  std::vector<float> a = Activations(3, 64);
  std::fill_n(a.begin(), 64, 0.0f);
  a[64 + 7] = std::nanf("");
  const std::vector<float> y =
      Product(*backend, matrix.raw(), {PackKind::kHead, kUnit}, a);
  for (int r = 0; r < 16; ++r) {
    EXPECT_EQ(y[r], 0.0f);
    EXPECT_TRUE(std::isnan(y[16 + r]));
    EXPECT_FALSE(std::isnan(y[32 + r]));
  }
}

TEST(Fp8ProductTest, EmbeddingsAreReadFromCodesToTheirFp32Value) {
  const auto backend = MakeBackend(kW8A16);
  std::mt19937 random(5);
  const Fp8Rows matrix(random, 20, 128);
  const RawMatrix raw = matrix.raw();
  const auto packed = *backend->Pack({&raw, 1}, {PackKind::kHead, kUnit});
  const std::vector<int32_t> ids = {19, 0, 8, 7};
  std::vector<float> x(ids.size() * raw.cols);
  ASSERT_OK(backend->Embed(
      {.ids = ids, .table = packed.get(), .x = {x.data(), 4, raw.cols}}));
  std::vector<float> expected(x.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    DequantizeRow(raw, ids[i], expected.data() + i * raw.cols);
  }
  EXPECT_EQ(BitsOf(x), BitsOf(expected));
}

TEST(Fp8ProductTest, MatricesTakeAByteAWeightAndAScaleARow) {
  std::mt19937 random(6);
  const Fp8Rows matrix(random, 64, 1024);
  const RawMatrix raw = matrix.raw();
  EXPECT_EQ(
      MakeBackend(kW8A16)->PackedBytes({&raw, 1}, {PackKind::kHead, kUnit}),
      size_t{64} * 1024 + 64 * 4);
}

TEST(Fp8ProductTest, WhatIsNoMatrixOfOneScaleARowIsRefused) {
  const auto backend = MakeBackend(kW8A16);
  std::mt19937 random(6);
  Fp8Rows nan(random, 5, 64);
  nan.Row(3)[36 + 4 + 9] = std::byte{0xff};
  const RawMatrix with_nan = nan.raw();
  EXPECT_THAT(backend->Pack({&with_nan, 1}, {PackKind::kHead, kUnit}),
              HasReason(Reason::kModelFileInvalid, HasSubstr("row 3")));
  Fp8Rows scales(random, 5, 64);
  scales.Row(4)[36] ^= std::byte{1};
  const RawMatrix with_scales = scales.raw();
  EXPECT_THAT(
      backend->Pack({&with_scales, 1}, {PackKind::kHead, kUnit}),
      HasReason(Reason::kModelFileInvalid, HasSubstr("different scales")));
}

TEST(Fp8ProductTest, OtherDevicesAndBackendsRefuseTheClassByName) {
  EXPECT_THAT(
      MakeBackendOn(
          std::make_unique<EmulatedDevice>(EmulatedOptions{.fp8 = false}),
          OptionsOf(kW8A8)),
      HasReason(Reason::kUnsupportedParameter, HasSubstr("--activations=fp8")));
  EXPECT_THAT(
      MakeCpuBackend({.numerics = {ActivationType::kFp8, DType::kBf16}}),
      HasReason(Reason::kUnsupportedParameter, HasSubstr("--activations=fp8")));
  EXPECT_THAT(
      MakeCpuBackend({.numerics = {ActivationType::kFp32, DType::kFp8}}),
      HasReason(Reason::kUnsupportedParameter, HasSubstr("--kv=fp8")));
}

// ---- A whole layer.

std::vector<TrialShape> Shapes() {
  return {{.name = "Gqa",
           .hidden = 64,
           .heads = 4,
           .kv_heads = 2,
           .head_dim = 16,
           .feed_forward = 96,
           .vocabulary = 65,
           .weights = WeightType::kFp8,
           .seed = 4},
          {.name = "MqaHead128",
           .hidden = 128,
           .heads = 2,
           .kv_heads = 1,
           .head_dim = 128,
           .feed_forward = 160,
           .vocabulary = 33,
           .weights = WeightType::kFp8,
           .bias = true,
           .seed = 5},
          {.name = "MhaHead8",
           .hidden = 32,
           .heads = 12,
           .kv_heads = 12,
           .head_dim = 8,
           .feed_forward = 32,
           .vocabulary = 40,
           .weights = WeightType::kFp8,
           .seed = 6}};
}

void ExpectNear(const TrialResult& expected, const TrialResult& actual,
                float tolerance) {
  for (const auto& [phase, bits] : expected) {
    ASSERT_EQ(bits.size(), actual.at(phase).size()) << phase;
    float scale = 0;
    for (const uint32_t b : bits) {
      scale = std::max(scale, std::fabs(std::bit_cast<float>(b)));
    }
    for (size_t i = 0; i < bits.size(); ++i) {
      ASSERT_NEAR(std::bit_cast<float>(bits[i]),
                  std::bit_cast<float>(actual.at(phase)[i]), tolerance * scale)
          << phase << " element " << i;
    }
  }
}

void ExpectNearTheReference(const NumericsOptions& numerics, float tolerance) {
  const std::vector<TrialSequence> sequences = {{0, 1}, {20, 1}, {15, 4}};
  for (const TrialShape& shape : Shapes()) {
    const auto reference = *MakeReferenceBackend(numerics);
    const auto backend = MakeBackend(numerics);
    ExpectNear(OpTrial(*reference, shape).Run(sequences),
               OpTrial(*backend, shape).Run(sequences), tolerance);
  }
}

TEST(Fp8LayerTest, PhasesWithBf16ActivationsAreNearTheReference) {
  ExpectNearTheReference(kW8A16, 2e-2f);
}

// A sum on the other side of the middle between two codes makes 1/8 of one
// element, and phases follow each other; the tests above are exact.
TEST(Fp8LayerTest, PhasesWithFp8ActivationsAndCachesAreNearTheReference) {
  ExpectNearTheReference(kW8A8, 1e-1f);
}

TEST(Fp8LayerTest, Fp32ActivationsOverACacheOfFp8HaveTheReferenceBits) {
  const NumericsOptions numerics = {ActivationType::kFp32, DType::kFp8};
  const std::vector<TrialSequence> sequences = {{0, 1}, {16, 3}, {9, 9}};
  for (const TrialShape& shape : Shapes()) {
    const auto reference = *MakeReferenceBackend(numerics);
    const auto backend = MakeBackend(numerics);
    EXPECT_EQ(OpTrial(*reference, shape).Run(sequences),
              OpTrial(*backend, shape).Run(sequences));
  }
}

TEST(Fp8LayerTest, ATokensBitsDoNotDependOnTheBatch) {
  const auto backend = MakeBackend(kW8A8);
  const TrialShape shape = Shapes()[0];
  const TrialResult expected = OpTrial(*backend, shape).Run({{33, 1}});
  std::vector<TrialSequence> sequences = {{33, 1}};
  for (int i = 0; i < 20; ++i) sequences.push_back({i % 5, 1});
  const TrialResult actual = OpTrial(*backend, shape).Run(sequences);
  for (const auto& [phase, bits] : expected) {
    EXPECT_TRUE(std::equal(bits.begin(), bits.end(), actual.at(phase).begin()))
        << phase;
  }
}

TEST(Fp8LayerTest, ChunksOfAPromptGiveTheBitsOfTheWhole) {
  const auto backend = MakeBackend(kW8A8);
  const TrialShape shape = Shapes()[1];
  OpTrial whole(*backend, shape);
  const Bits all = whole.Step({{0, 37}}).at("down");
  OpTrial cut(*backend, shape);
  cut.Step({{0, 5}});
  cut.Step({{5, 1}});
  const Bits rest = cut.Step({{6, 31}}).at("down");
  const size_t width = all.size() / 37;
  EXPECT_EQ(Bits(all.begin() + 6 * width, all.end()), rest);
}

TEST(Fp8LayerTest, CachesTakeAByteAnElementAndWhatWasPlanned) {
  const KvSpec spec = {
      .layers = 2, .kv_heads = 2, .head_dim = 32, .block_count = 3};
  const auto backend = MakeBackend(kW8A8);
  const auto kv = backend->AllocateKv(spec);
  ASSERT_OK(kv.status());
  EXPECT_EQ((*kv)->bytes, backend->KvBytes(spec));
  EXPECT_EQ((*kv)->bytes, size_t{2} * 3 * 2 * 2 * 16 * 32);
  EXPECT_EQ(2 * (*kv)->bytes, MakeBackend(kW8A16)->KvBytes(spec));
}

// ---- Where codes lie.

TEST(Fp8LayoutTest, EveryWeightHasAByteInItsLane) {
  constexpr int64_t kDepth = 96;
  std::set<int64_t> places;
  for (int64_t row = 0; row < 32; ++row) {
    for (int64_t k = 0; k < kDepth; ++k) {
      const int64_t place = Fp8WeightOffset(row, k, kDepth);
      places.insert(place);
      // The lane, and the half of it, are those of operand A of bf16.
      const int64_t half = WeightOffset(row, k, kDepth);
      EXPECT_EQ(place / 16 % 32, half / 8 % 32);
      EXPECT_EQ(place % 16 / 4 % 2, half % 8 / 2 % 2);
    }
  }
  EXPECT_EQ(places.size(), size_t{32 * kDepth});
  EXPECT_EQ(*places.rbegin(), 32 * kDepth - 1);
}

TEST(Fp8LayoutTest, EveryActivationHasAByteWhereWeightsHaveTheirs) {
  constexpr int64_t kDepth = 64;
  std::set<int64_t> places;
  for (int64_t token = 0; token < 16; ++token) {
    for (int64_t k = 0; k < kDepth; ++k) {
      const int64_t place = Fp8ActivationOffset(token, k, kDepth);
      places.insert(place);
      // Quarter, half of 32 and byte are those of row 0's weight.
      const int64_t weight = Fp8WeightOffset(0, k, kDepth);
      EXPECT_EQ(place / 8 % 4, weight / 16 % 4);
      EXPECT_EQ(place % 8 / 4, weight % 16 / 8);
      EXPECT_EQ(place % 4, weight % 4);
    }
  }
  EXPECT_EQ(places.size(), size_t{16 * kDepth});
  EXPECT_EQ(*places.rbegin(), 16 * kDepth - 1);
}

// So that a word of codes is two words of bf16: elements in the same order.
TEST(Fp8LayoutTest, CodesOfCachesAreTheElementsOfAWord) {
  for (int64_t slot = 0; slot < 16; ++slot) {
    for (int64_t dim = 0; dim < 32; ++dim) {
      EXPECT_EQ(KeyOffset(slot, dim) % 4, ByteOf(dim));
      EXPECT_EQ(KeyOffset(slot, dim) / 8 % 4, QuadOf(dim));
      EXPECT_EQ(ValueOffset(slot, dim) % 4, ByteOf(slot));
      EXPECT_EQ(ValueOffset(slot, dim) / 8 % 4, QuadOf(slot));
    }
  }
}

TEST(Fp8LayoutTest, EveryCodeWidensExactly) {
  for (uint32_t code = 0; code < 256; ++code) {
    const float value = ToFloat(Fp8{static_cast<uint8_t>(code)});
    uint32_t wide[2];
    for (int byte = 0; byte < 4; ++byte) {
      WidenAnyFp8(code << 8 * byte | 0x30u << 8 * ((byte + 1) % 4), wide);
      const uint32_t half = wide[byte / 2] >> 16 * (byte % 2) & 0xffff;
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(ToFloat(Bf16{static_cast<uint16_t>(wide[0])})));
      } else {
        EXPECT_EQ(half, ToBf16(value).bits) << code;
      }
    }
  }
}

}  // namespace
}  // namespace caravan::worker::cuda
