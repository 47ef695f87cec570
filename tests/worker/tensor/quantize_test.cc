#include "worker/tensor/quantize.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/support/reference_data.h"

namespace caravan::worker {
namespace {

std::vector<std::byte> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  const std::string content((std::istreambuf_iterator<char>(file)),
                            std::istreambuf_iterator<char>());
  const auto* const bytes = reinterpret_cast<const std::byte*>(content.data());
  return {bytes, bytes + content.size()};
}

struct VectorFile {
  WeightType type;
  std::string name;
};

void PrintTo(const VectorFile& value, std::ostream* out) { *out << value.name; }

class BlockVectorTest : public ::testing::TestWithParam<VectorFile> {};

TEST_P(BlockVectorTest, DequantizesToTheSameBits) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(directory, "gguf/quant-vectors");
  const std::string base = directory + "/" + GetParam().name;
  const std::vector<std::byte> blocks = ReadFile(base + ".q");
  const std::vector<std::byte> expected = ReadFile(base + ".f32");
  ASSERT_EQ(blocks.size(), 4u * RowBytes(GetParam().type, 256));
  std::vector<float> values(4 * 256);
  DequantizeRow(GetParam().type, blocks.data(), std::ssize(values),
                values.data());
  ASSERT_EQ(expected.size(), values.size() * sizeof(float));
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, expected.data() + 4 * i, sizeof(bits));
    ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), bits) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Types, BlockVectorTest,
    ::testing::Values(VectorFile{WeightType::kQ8_0, "q8_0"},
                      VectorFile{WeightType::kQ4_0, "q4_0"},
                      VectorFile{WeightType::kQ4_1, "q4_1"},
                      VectorFile{WeightType::kQ5_0, "q5_0"},
                      VectorFile{WeightType::kQ5_1, "q5_1"},
                      VectorFile{WeightType::kQ2_K, "q2_K"},
                      VectorFile{WeightType::kQ3_K, "q3_K"},
                      VectorFile{WeightType::kQ4_K, "q4_K"},
                      VectorFile{WeightType::kQ5_K, "q5_K"},
                      VectorFile{WeightType::kQ6_K, "q6_K"},
                      VectorFile{WeightType::kIq4Nl, "iq4_nl"},
                      VectorFile{WeightType::kIq4Xs, "iq4_xs"},
                      VectorFile{WeightType::kTq1_0, "tq1_0"},
                      VectorFile{WeightType::kTq2_0, "tq2_0"}),
    [](const auto& info) { return std::string(Name(info.param.type)); });

std::vector<float> Normal(size_t count, float deviation) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// Root of the mean squared error of a round trip, over the deviation.
double RelativeError(WeightType type, const std::vector<float>& values) {
  const auto count = static_cast<int64_t>(values.size());
  std::vector<std::byte> blocks(RowBytes(type, count));
  std::vector<float> back(values.size());
  QuantizeRow(type, values.data(), count, blocks.data());
  DequantizeRow(type, blocks.data(), count, back.data());
  double error = 0;
  double power = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    error += std::pow(back[i] - values[i], 2);
    power += std::pow(values[i], 2);
  }
  return std::sqrt(error / power);
}

// For b bits over the range of 32 normal values, about 4.1 deviations, the
// error is range / 2^b / sqrt(12).
TEST(QuantizeRowTest, ErrorsAreThoseOfTheBits) {
  const std::vector<float> values = Normal(4096, 0.02f);
  EXPECT_EQ(RelativeError(WeightType::kFp32, values), 0);
  EXPECT_LT(RelativeError(WeightType::kBf16, values), 0.002);
  EXPECT_LT(RelativeError(WeightType::kFp16, values), 0.0005);
  EXPECT_LT(RelativeError(WeightType::kQ8_0, values), 0.007);
  EXPECT_LT(RelativeError(WeightType::kQ6_K, values), 0.022);
  EXPECT_LT(RelativeError(WeightType::kQ5_1, values), 0.042);
  EXPECT_LT(RelativeError(WeightType::kQ5_0, values), 0.047);
  EXPECT_LT(RelativeError(WeightType::kQ4_K, values), 0.081);
  EXPECT_LT(RelativeError(WeightType::kQ4_1, values), 0.085);
  EXPECT_LT(RelativeError(WeightType::kQ4_0, values), 0.095);
}

// A float of 3 bits of fraction is wrong by up to 1/16; no GGUF file has it.
TEST(QuantizeRowTest, RowsOfFp8HaveOneScale) {
  const std::vector<float> values = Normal(4096, 0.02f);
  EXPECT_LT(RelativeError(WeightType::kFp8, values), 0.028);
  EXPECT_FALSE(CanQuantize(WeightType::kFp8));
  std::vector<std::byte> blocks(RowBytes(WeightType::kFp8, 64));
  std::vector<float> row(64, 0.25f);
  row[40] = -7.0f;
  QuantizeRow(WeightType::kFp8, row.data(), 64, blocks.data());
  EXPECT_EQ(std::memcmp(blocks.data(), blocks.data() + 36, 4), 0);
  EXPECT_EQ(blocks[36 + 4 + 8], std::byte{0xfe});  // -448
  std::vector<float> back(64);
  DequantizeRow(WeightType::kFp8, blocks.data(), 64, back.data());
  EXPECT_EQ(back, row);
}

TEST(QuantizeRowTest, MultiplesOfAScaleComeBack) {
  std::vector<float> values(32);
  for (int i = 0; i < 32; ++i) values[i] = static_cast<float>(i % 15 - 8) / 8;
  for (const WeightType type :
       {WeightType::kQ8_0, WeightType::kQ4_0, WeightType::kQ5_0}) {
    EXPECT_LT(RelativeError(type, values), 0.005) << Name(type);
  }
}

TEST(QuantizeRowTest, ZerosStayZeros) {
  const std::vector<float> zeros(256);
  for (const WeightTypeInfo& info : kWeightTypes) {
    const WeightType type = *WeightTypeFromName(info.name);
    if (!CanQuantize(type)) continue;
    std::vector<std::byte> blocks(RowBytes(type, 256));
    std::vector<float> back(256, 1.0f);
    QuantizeRow(type, zeros.data(), 256, blocks.data());
    DequantizeRow(type, blocks.data(), 256, back.data());
    EXPECT_EQ(back, zeros) << info.name;
  }
}

TEST(RawMatrixTest, RowsOfInterleavedHeadsComeInTheOrderOfHalves) {
  std::vector<float> values(8);  // two heads of four rows of one
  for (int i = 0; i < 8; ++i) values[i] = static_cast<float>(i);
  RawMatrix matrix(reinterpret_cast<const std::byte*>(values.data()),
                   DType::kFp32, 8, 1);
  matrix.interleaved = 4;
  std::vector<float> rows(8);
  for (int64_t r = 0; r < 8; ++r) DequantizeRow(matrix, r, &rows[r]);
  EXPECT_EQ(rows, (std::vector<float>{0, 2, 1, 3, 4, 6, 5, 7}));
}

}  // namespace
}  // namespace caravan::worker
