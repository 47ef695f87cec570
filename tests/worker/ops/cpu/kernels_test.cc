#include "worker/ops/cpu/kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "worker/ops/canonical_math.h"
#include "worker/ops/sample.h"

namespace caravan::worker::cpu {
namespace {

std::vector<const KernelTable*> Tables() {
  std::vector<const KernelTable*> tables;
  for (const KernelTable* table :
       {Avx512Kernels(), Avx2Kernels(), PortableKernels()}) {
    if (table != nullptr) tables.push_back(table);
  }
  return tables;
}

class KernelsTest : public ::testing::TestWithParam<const KernelTable*> {};

// Every 2,039th float of all, and those around the function's borders.
std::vector<float> ManyFloats() {
  std::vector<float> floats;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 2039) {
    floats.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  }
  for (const float border :
       {0.0f, -0.0f, 1.0f, -1.0f, -87.0f, 88.7f, 88.72283f, 0.34657359f,
        -0.34657359f, std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::min(),
        std::numeric_limits<float>::denorm_min()}) {
    float below = border;
    float above = border;
    for (int i = 0; i < 50; ++i) {
      floats.push_back(below);
      floats.push_back(above);
      below = std::nextafter(below, -std::numeric_limits<float>::infinity());
      above = std::nextafter(above, std::numeric_limits<float>::infinity());
    }
  }
  return floats;
}

TEST_P(KernelsTest, ExpHasTheBitsOfTheScalarExp) {
  const std::vector<float> x = ManyFloats();
  std::vector<float> y(x.size());
  GetParam()->exp(x.data(), static_cast<int64_t>(x.size()), y.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const float expected = Exp(x[i]);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(y[i])) << x[i];
    } else {
      ASSERT_EQ(std::bit_cast<uint32_t>(expected),
                std::bit_cast<uint32_t>(y[i]))
          << x[i];
    }
  }
}

TEST_P(KernelsTest, SampleWeightsAreThoseOfTheScalarRule) {
  std::vector<float> logits;
  for (int i = 0; i < 4001; ++i) {
    logits.push_back(30.0f - static_cast<float>(i) * 0.01371f);
  }
  logits.push_back(-std::numeric_limits<float>::infinity());
  logits.push_back(-std::numeric_limits<float>::max());
  std::vector<uint64_t> weights(logits.size());
  for (const float temperature : {1.0f, 0.1f, 2.0f, 1e-30f, 0.73f}) {
    GetParam()->sample_weights(logits.data(),
                               static_cast<int64_t>(logits.size()), 30.0f,
                               temperature, weights.data());
    for (size_t i = 0; i < logits.size(); ++i) {
      ASSERT_EQ(weights[i], SampleWeight(logits[i], 30.0f, temperature))
          << logits[i] << " at " << temperature;
    }
  }
}

TEST_P(KernelsTest, FindGivesTheFirstOfEqualValues) {
  std::vector<float> x(1000, 1.0f);
  x[300] = x[301] = x[999] = 2.0f;
  EXPECT_EQ(GetParam()->find(x.data(), 1000, 2.0f), 300);
  EXPECT_EQ(GetParam()->find(x.data(), 300, 2.0f), 300);
  EXPECT_EQ(GetParam()->find(x.data(), 1000, 1.0f), 0);
}

TEST_P(KernelsTest, MaxFiniteSeesEveryPlace) {
  for (int64_t count = 1; count < 50; ++count) {
    for (int64_t place = 0; place < count; ++place) {
      std::vector<float> x(static_cast<size_t>(count), -3.0f);
      bool finite = false;
      x[place] = -2.0f;
      EXPECT_EQ(GetParam()->max_finite(x.data(), count, &finite), -2.0f);
      EXPECT_TRUE(finite);
      x[place] = std::numeric_limits<float>::quiet_NaN();
      GetParam()->max_finite(x.data(), count, &finite);
      EXPECT_FALSE(finite);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    EveryInstructionSet, KernelsTest, ::testing::ValuesIn(Tables()),
    [](const ::testing::TestParamInfo<const KernelTable*>& info) {
      return std::string(info.param->name);
    });

}  // namespace
}  // namespace caravan::worker::cpu
