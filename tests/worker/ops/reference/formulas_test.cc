#include "worker/ops/reference/formulas.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "worker/ops/canonical_math.h"
#include "worker/ops/ops.h"

namespace caravan::worker::reference {
namespace {

std::vector<float> Random(int count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<float> values(count);
  for (float& value : values) {
    value = static_cast<float>(generator() % 20001) / 10000.0f - 1.0f;
  }
  return values;
}

TEST(FormulasTest, RmsNormDividesByTheRootMeanSquare) {
  for (const int dim : {1, 15, 16, 17, 100}) {
    const std::vector<float> x = Random(dim, 1);
    const std::vector<float> w = Random(dim, 2);
    std::vector<float> y(dim);
    RmsNorm(x, w, 1e-5f, y);
    double squares = 0;
    for (const float value : x) squares += double{value} * value;
    const double scale = 1 / std::sqrt(squares / dim + 1e-5);
    for (int i = 0; i < dim; ++i) EXPECT_NEAR(y[i], x[i] * scale * w[i], 1e-6);
  }
}

TEST(FormulasTest, SegmentsCoverEveryColumnOnceWithAscendingBorders) {
  for (const int64_t unit : {1, 8, 32, 100}) {
    for (const int64_t k : {1, 31, 32, 33, 108, 800, 1000}) {
      const auto borders = SegmentBorders(k, unit);
      EXPECT_EQ(borders[0], 0);
      EXPECT_EQ(borders[kSegments], k);
      for (int s = 0; s < kSegments; ++s) {
        EXPECT_LE(borders[s], borders[s + 1]);
        EXPECT_TRUE(borders[s] == k || borders[s] % unit == 0);
      }
    }
  }
}

TEST(FormulasTest, SegmentedProductIsTheTreeOfTheSegmentsChains) {
  const int64_t k = 108;
  const std::vector<float> x = Random(k, 3);
  const std::vector<float> w = Random(k, 4);
  float s[8];
  const auto borders = SegmentBorders(k, 32);
  for (int i = 0; i < 8; ++i) {
    s[i] = 0;
    for (int64_t j = borders[i]; j < borders[i + 1]; ++j) {
      s[i] = std::fma(x[j], w[j], s[i]);
    }
  }
  std::vector<float> y(1);
  MatMulSegmented(x, View<const float>(w.data(), 1, k), borders, y);
  EXPECT_EQ(y[0],
            ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])));
}

TEST(FormulasTest, RopeTurnsEachPairOfHalves) {
  std::vector<float> head = {1, 2, 3, 4};
  const std::vector<float> cos = {0.6f, 0.0f};
  const std::vector<float> sin = {0.8f, 1.0f};
  Rope(cos, sin, head);
  EXPECT_FLOAT_EQ(head[0], 1 * 0.6f - 3 * 0.8f);
  EXPECT_FLOAT_EQ(head[1], -4);
  EXPECT_FLOAT_EQ(head[2], 3 * 0.6f + 1 * 0.8f);
  EXPECT_FLOAT_EQ(head[3], 2);
}

TEST(FormulasTest, SiluMultiplyGatesTheOtherHalf) {
  std::vector<float> x = {0, 1, -2};
  SiluMultiply(std::vector<float>{3, 5, 7}, x);
  EXPECT_EQ(x[0], 0);
  EXPECT_NEAR(x[1], 5 / (1 + std::exp(-1.0)), 1e-6);
  EXPECT_NEAR(x[2], -14 / (1 + std::exp(2.0)), 1e-6);
}

// Softmax-weighted mean of values in double.
std::vector<double> PlainAttention(const std::vector<float>& q,
                                   const std::vector<float>& keys,
                                   const std::vector<float>& values, int d) {
  const int count = static_cast<int>(keys.size()) / d;
  std::vector<double> p(count), out(d);
  double sum = 0;
  for (int j = 0; j < count; ++j) {
    double dot = 0;
    for (int i = 0; i < d; ++i) dot += double{q[i]} * keys[j * d + i];
    p[j] = std::exp(dot / std::sqrt(double(d)));
    sum += p[j];
  }
  for (int j = 0; j < count; ++j) {
    for (int i = 0; i < d; ++i) out[i] += p[j] / sum * values[j * d + i];
  }
  return out;
}

TEST(FormulasTest, AttentionIsTheSoftmaxMeanAcrossSplits) {
  constexpr int kDim = 6;
  for (const int count : {1, 15, 16, 17, 255, 256, 257, 600}) {
    const std::vector<float> q = Random(kDim, 5);
    const std::vector<float> k = Random(count * kDim, 6);
    const std::vector<float> v = Random(count * kDim, 7);
    std::vector<float> out(kDim);
    Attention(q, View<const float>(k.data(), count, kDim),
              View<const float>(v.data(), count, kDim), out);
    const std::vector<double> expected = PlainAttention(q, k, v, kDim);
    for (int i = 0; i < kDim; ++i) EXPECT_NEAR(out[i], expected[i], 2e-6);
  }
}

}  // namespace
}  // namespace caravan::worker::reference
