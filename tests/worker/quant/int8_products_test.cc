// Packing and kernels of every format and instruction set against the literal
// form.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/random_blocks.h"
#include "worker/quant/int8_activations.h"
#include "worker/quant/int8_packing.h"
#include "worker/quant/int8_panel.h"
#include "worker/quant/weight_group.h"
#include "worker/tensor/buffer.h"
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

std::vector<std::byte> RandomRows(WeightType type, int64_t rows, int64_t cols) {
  std::mt19937 random(7);
  return caravan::testing::RandomBlocks(random, type, rows * cols);
}

std::vector<ActivationGroup> Quantized(const std::vector<float>& x) {
  std::vector<ActivationGroup> groups(x.size() / kGroupElements);
  QuantizeActivations(x, groups.data());
  return groups;
}

std::vector<const Int8Table*> Tables() {
  std::vector<const Int8Table*> tables = {PortableInt8()};
  if (Avx2Int8() != nullptr) tables.push_back(Avx2Int8());
  if (Avx512VnniInt8() != nullptr) tables.push_back(Avx512VnniInt8());
  return tables;
}

std::vector<WeightType> GroupTypes() {
  std::vector<WeightType> types;
  for (size_t i = 0; i < kWeightTypes.size(); ++i) {
    const auto type = static_cast<WeightType>(i);
    if (Int8FormatOf(type)) types.push_back(type);
  }
  return types;
}

// Random rows of a type, as they are and packed.
class Matrix {
 public:
  Matrix(WeightType type, int64_t rows, int64_t groups)
      : type_(type),
        rows_(rows),
        groups_(groups),
        cols_(groups * kGroupElements),
        bytes_(RandomRows(type, rows, cols_)),
        format_(*Int8FormatOf(type)),
        vectors_((rows + kLanes - 1) / kLanes),
        packed_(*Buffer::Allocate(
            static_cast<size_t>(vectors_ * VectorBytes(format_, groups)))) {
    for (int64_t v = 0; v < vectors_; ++v) {
      std::array<const std::byte*, kLanes> lanes = {};
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const int64_t r = v * kLanes + lane;
        if (r < rows) lanes[static_cast<size_t>(lane)] = row(r);
      }
      PackVector(type, lanes, groups, Place(v), Panel(v / kPanelVectors));
    }
  }

  WeightType type() const { return type_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t groups() const { return groups_; }
  Int8Format format() const { return format_; }
  const std::byte* row(int64_t r) const {
    return bytes_.data() + r * RowBytes(type_, cols_);
  }
  int64_t panels() const {
    return (vectors_ + kPanelVectors - 1) / kPanelVectors;
  }
  int PanelVectors(int64_t panel) const {
    return static_cast<int>(
        std::min<int64_t>(kPanelVectors, vectors_ - panel * kPanelVectors));
  }
  std::byte* Panel(int64_t panel) const {
    return const_cast<std::byte*>(packed_.data()) +
           panel * kPanelVectors * VectorBytes(format_, groups_);
  }
  VectorPlace Place(int64_t vector) const {
    return {format_, PanelVectors(vector / kPanelVectors),
            static_cast<int>(vector % kPanelVectors)};
  }

 private:
  const WeightType type_;
  const int64_t rows_;
  const int64_t groups_;
  const int64_t cols_;
  const std::vector<std::byte> bytes_;
  const Int8Format format_;
  const int64_t vectors_;
  Buffer packed_;
};

class GroupTypeTest : public ::testing::TestWithParam<WeightType> {};

// Rounding moves an activation by at most half a step: a product by at most the
// sum of its weights' magnitudes times half the step of their group. Sums of
// integers are exact, and the fp32 operations of a group round twice.
TEST_P(GroupTypeTest, AProductIsWithinHalfAStepOfEveryActivation) {
  const Matrix matrix(GetParam(), 20, 16);
  const std::vector<float> x = RandomFloats(matrix.cols(), 3);
  const std::vector<ActivationGroup> groups = Quantized(x);
  const int64_t borders[] = {0, matrix.cols()};
  std::vector<float> w(x.size());
  for (int64_t r = 0; r < matrix.rows(); ++r) {
    DequantizeRow(GetParam(), matrix.row(r), matrix.cols(), w.data());
    double exact = 0;
    double magnitude = 0;
    double bound = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double step = groups[i / kGroupElements].scale;
      exact += double{w[i]} * x[i];
      magnitude += std::fabs(double{w[i]} * x[i]);
      bound += std::fabs(double{w[i]}) * step / 2;
    }
    const double product =
        ReferenceProduct(GetParam(), matrix.row(r), groups.data(), borders, 1);
    bound += (magnitude + bound) * 4 * static_cast<double>(groups.size()) *
             std::numeric_limits<float>::epsilon();
    EXPECT_LE(std::fabs(product - exact), bound) << "row " << r;
  }
}

TEST_P(GroupTypeTest, APackedRowWidensToWhatTheFileHolds) {
  const Matrix matrix(GetParam(), 70, 16);
  std::vector<float> expected(static_cast<size_t>(matrix.cols()));
  std::vector<float> actual(expected.size());
  for (int64_t r = 0; r < matrix.rows(); ++r) {
    DequantizeRow(GetParam(), matrix.row(r), matrix.cols(), expected.data());
    UnpackRow(matrix.Place(r / kLanes), static_cast<int>(r % kLanes),
              matrix.groups(), matrix.Panel(r / kPanelRows), actual.data());
    ASSERT_EQ(expected, actual) << "row " << r;
  }
}

TEST_P(GroupTypeTest, TheProductIsNearThatOfWidenedNumbers) {
  const Matrix matrix(GetParam(), 3, 16);
  const std::vector<float> x = RandomFloats(matrix.cols(), 5);
  const std::vector<ActivationGroup> groups = Quantized(x);
  const std::array<int64_t, 2> borders = {0, matrix.cols()};
  std::vector<float> row(static_cast<size_t>(matrix.cols()));
  for (int64_t r = 0; r < matrix.rows(); ++r) {
    DequantizeRow(GetParam(), matrix.row(r), matrix.cols(), row.data());
    double exact = 0;
    double bound = 0;  // half a step of each activation, and some roundings
    for (size_t i = 0; i < row.size(); ++i) {
      exact += double{row[i]} * x[i];
      bound += std::fabs(double{row[i]}) * groups[i / 32].scale * 0.501 +
               std::fabs(double{row[i]} * x[i]) * 0x1p-18;
    }
    EXPECT_NEAR(ReferenceProduct(GetParam(), matrix.row(r), groups.data(),
                                 borders.data(), 1),
                exact, bound * 1.05);
  }
}

std::string NameOf(WeightType type) { return std::string(Name(type)); }

INSTANTIATE_TEST_SUITE_P(EveryType, GroupTypeTest,
                         ::testing::ValuesIn(GroupTypes()),
                         [](const auto& info) { return NameOf(info.param); });

class Int8ProductsTest : public ::testing::TestWithParam<
                             std::tuple<const Int8Table*, WeightType>> {
 protected:
  const Int8Table& table() const { return *std::get<0>(GetParam()); }
  WeightType type() const { return std::get<1>(GetParam()); }

  // `borders` count groups.
  void ExpectReferenceBits(int64_t rows, int64_t tokens,
                           std::vector<int64_t> borders) {
    const Matrix matrix(type(), rows, borders.back());
    for (int64_t& border : borders) border *= kGroupElements;
    const std::vector<ActivationGroup> x =
        Quantized(RandomFloats(tokens * matrix.cols(), 2));
    std::vector<float> out(static_cast<size_t>(tokens * kPanelRows));
    for (int64_t panel = 0; panel < matrix.panels(); ++panel) {
      table().panels[static_cast<size_t>(matrix.format())](
          {.data = matrix.Panel(panel),
           .vectors = matrix.PanelVectors(panel),
           .borders = borders.data(),
           .segments = static_cast<int>(borders.size()) - 1,
           .x = x.data(),
           .x_stride =
               matrix.groups() * static_cast<int64_t>(sizeof(ActivationGroup)),
           .tokens = tokens,
           .out = out.data(),
           .out_stride = kPanelRows});
      const int64_t first = panel * kPanelRows;
      for (int64_t r = first; r < std::min(rows, first + kPanelRows); ++r) {
        for (int64_t t = 0; t < tokens; ++t) {
          const float expected = ReferenceProduct(
              type(), matrix.row(r), x.data() + t * matrix.groups(),
              borders.data(), static_cast<int>(borders.size()) - 1);
          ASSERT_EQ(std::bit_cast<uint32_t>(expected),
                    std::bit_cast<uint32_t>(out[t * kPanelRows + r - first]))
              << "row " << r << " token " << t << " of " << tokens;
        }
      }
    }
  }
};

TEST_P(Int8ProductsTest, EveryNumberOfTokensHasTheBitsOfTheReference) {
  for (int64_t tokens = 1; tokens <= 14; ++tokens) {
    ExpectReferenceBits(/*rows=*/100, tokens, {0, 16});
  }
}

TEST_P(Int8ProductsTest, SegmentsAreAddedByTheTreeWhereverTheyBegin) {
  ExpectReferenceBits(64, 3, {0, 1, 2, 4, 7, 8, 11, 16, 24});
  ExpectReferenceBits(17, 7, {0, 0, 0, 0, 3, 3, 3, 5, 8});
}

INSTANTIATE_TEST_SUITE_P(EveryInstructionSetAndType, Int8ProductsTest,
                         ::testing::Combine(::testing::ValuesIn(Tables()),
                                            ::testing::ValuesIn(GroupTypes())),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)->name) +
                                  "_" + NameOf(std::get<1>(info.param));
                         });

TEST(Int8FormatTest, TypesWithoutIntegerProductsHaveNone) {
  for (const WeightType type :
       {WeightType::kFp32, WeightType::kBf16, WeightType::kNf4,
        WeightType::kQ2_K, WeightType::kTq1_0}) {
    EXPECT_EQ(Int8FormatOf(type), std::nullopt) << Name(type);
  }
}

class Int8QuantizeTest : public ::testing::TestWithParam<const Int8Table*> {
 protected:
  void ExpectReferenceBits(const std::vector<float>& x) {
    const std::vector<ActivationGroup> expected = Quantized(x);
    std::vector<ActivationGroup> actual(expected.size());
    GetParam()->quantize(x.data(), static_cast<int64_t>(actual.size()),
                         actual.data());
    for (size_t g = 0; g < actual.size(); ++g) {
      using Bytes = std::array<std::byte, sizeof(ActivationGroup)>;
      EXPECT_EQ(std::bit_cast<Bytes>(expected[g]),
                std::bit_cast<Bytes>(actual[g]))
          << "group " << g;
    }
  }
};

TEST_P(Int8QuantizeTest, EveryGroupHasTheBitsOfTheReference) {
  std::vector<float> x = RandomFloats(32 * 300, 9);
  for (size_t i = 0; i < x.size(); ++i) {  // from tiny to large
    x[i] = std::ldexp(x[i], static_cast<int>(i / 32) - 150);
  }
  x[32 * 40 + 3] = std::numeric_limits<float>::infinity();
  x[32 * 41 + 31] = std::numeric_limits<float>::quiet_NaN();
  x[32 * 42] = -std::numeric_limits<float>::infinity();
  std::fill_n(x.begin() + 32 * 43, 32, 0.0f);
  std::fill_n(x.begin() + 32 * 44, 32, 2.5f);  // ties
  x[32 * 44] = 127.0f;
  ExpectReferenceBits(x);
}

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, Int8QuantizeTest,
                         ::testing::ValuesIn(Tables()), [](const auto& info) {
                           return std::string(info.param->name);
                         });

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
