#include "worker/quant/int8_matrix.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "worker/tensor/quantize.h"

namespace caravan::worker::quant {
namespace {

std::vector<float> RandomFloats(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    value = static_cast<float>(static_cast<int32_t>(random())) * 0x1p-31f;
  }
  return values;
}

std::vector<ActivationGroup> Quantized(const std::vector<float>& x) {
  std::vector<ActivationGroup> groups(x.size() / kGroupElements);
  QuantizeActivations(x, groups.data());
  return groups;
}

std::vector<const Int8Table*> Tables() {
  std::vector<const Int8Table*> tables = {PortableInt8()};
  if (Avx512VnniInt8() != nullptr) tables.push_back(Avx512VnniInt8());
  return tables;
}

class Int8MatrixTest : public ::testing::TestWithParam<
                           std::tuple<const Int8Table*, WeightType>> {
 protected:
  void ExpectReferenceBits(int64_t rows, int64_t groups, int64_t tokens,
                           const std::vector<int64_t>& borders) {
    const auto [table, type] = GetParam();
    const int64_t cols = groups * kGroupElements;
    const std::vector<float> weights = RandomFloats(rows * cols, 1);
    std::vector<std::byte> bytes(
        static_cast<size_t>(rows * RowBytes(type, cols)));
    QuantizeRow(type, weights.data(), rows * cols, bytes.data());
    const RawMatrix raw(bytes.data(), type, rows, cols);
    const auto matrix = Int8Matrix::Pack(raw);
    ASSERT_TRUE(matrix.ok()) << matrix.status();
    const auto x = Quantized(RandomFloats(tokens * cols, 2));
    std::vector<float> out(static_cast<size_t>(tokens * kPanelRows));
    for (int64_t panel = 0; panel < (*matrix)->panel_count(); ++panel) {
      (*matrix)->Multiply(*table, panel,
                          View<const ActivationGroup>(x.data(), tokens, groups),
                          borders, View<float>(out.data(), tokens, kPanelRows));
      const int64_t first = panel * kPanelRows;
      for (int64_t r = first; r < std::min(rows, first + kPanelRows); ++r) {
        for (int64_t t = 0; t < tokens; ++t) {
          const float expected = ReferenceProduct(
              type, raw.row(r), x.data() + t * groups, borders);
          ASSERT_EQ(std::bit_cast<uint32_t>(expected),
                    std::bit_cast<uint32_t>(out[t * kPanelRows + r - first]))
              << "row " << r << " token " << t << " of " << tokens;
        }
      }
    }
  }
};

TEST_P(Int8MatrixTest, EveryNumberOfTokensHasTheBitsOfTheReference) {
  for (int64_t tokens = 1; tokens <= 14; ++tokens) {
    ExpectReferenceBits(/*rows=*/100, /*groups=*/5, tokens, {0, 5});
  }
}

TEST_P(Int8MatrixTest, SegmentsAreAddedByTheTree) {
  ExpectReferenceBits(64, 11, 3, {0, 1, 2, 4, 5, 6, 8, 9, 11});
  ExpectReferenceBits(17, 2, 7, {0, 0, 0, 0, 1, 1, 1, 1, 2});
}

INSTANTIATE_TEST_SUITE_P(
    EveryInstructionSetAndFormat, Int8MatrixTest,
    ::testing::Combine(::testing::ValuesIn(Tables()),
                       ::testing::Values(WeightType::kQ8_0, WeightType::kQ4_0)),
    [](const auto& info) {
      return std::string(std::get<0>(info.param)->name) + "_" +
             std::string(Name(std::get<1>(info.param)));
    });

TEST(Int8MatrixRefusalTest, OtherTypesAreNamed) {
  const std::vector<std::byte> bytes(128);
  const auto matrix =
      Int8Matrix::Pack(RawMatrix(bytes.data(), WeightType::kFp32, 1, 32));
  EXPECT_FALSE(matrix.ok());
  EXPECT_NE(matrix.status().ToString().find("fp32"), std::string::npos);
}

TEST(Int8ActivationsTest, ErrorIsAtMostHalfAScale) {
  const std::vector<float> x = RandomFloats(320, 3);
  const auto groups = Quantized(x);
  for (size_t i = 0; i < x.size(); ++i) {
    const ActivationGroup& group = groups[i / kGroupElements];
    const float value = group.scale * group.q[i % kGroupElements];
    EXPECT_LE(std::fabs(value - x[i]), group.scale * 0.500001f);
  }
}

TEST(Int8ActivationsTest, WhatIsNotFinitePoisonsItsGroupOnly) {
  for (const float bad : {std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> x = RandomFloats(64, 4);
    x[5] = bad;
    const auto groups = Quantized(x);
    EXPECT_TRUE(std::isnan(groups[0].scale));
    EXPECT_FALSE(std::isnan(groups[1].scale));
  }
}

TEST(Int8ActivationsTest, ZerosAndTheSmallestNumbersAreZero) {
  std::vector<float> x(32, std::numeric_limits<float>::denorm_min());
  const auto groups = Quantized(x);
  EXPECT_EQ(groups[0].scale, 0.0f);
  EXPECT_EQ(groups[0].q[0], 0);
}

}  // namespace
}  // namespace caravan::worker::quant
