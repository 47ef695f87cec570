#include "worker/model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace caravan::worker {
namespace {

ModelConfig Config(int32_t head_dim, double theta) {
  ModelConfig config;
  config.head_dim = head_dim;
  config.rope_theta = theta;
  return config;
}

// Within fp32 rounding of a value known to ten digits.
void ExpectFrequency(const Rope& rope, int32_t i, double expected) {
  EXPECT_NEAR(rope.InverseFrequencies(0, 1)[i], expected, 1.2e-7 * expected)
      << "pair " << i;
}

TEST(RopeTest, PlainFrequenciesArePowersOfTheBase) {
  const Rope rope(Config(128, 10000));
  for (int32_t i = 0; i < 64; ++i) {
    ExpectFrequency(rope, i, std::pow(10000.0, -2.0 * i / 128));
  }
}

TEST(RopeTest, Llama3ScalingHasThePublishedZones) {
  ModelConfig config = Config(128, 500000);
  config.rope.type = RopeType::kLlama3;
  config.rope.factor = 8;
  config.rope.original_context = 8192;
  const Rope eight(config);
  ExpectFrequency(eight, 28, 3.211445995e-3);
  ExpectFrequency(eight, 29, 2.166570764e-3);
  ExpectFrequency(eight, 32, 5.248461610e-4);
  ExpectFrequency(eight, 34, 1.785078128e-4);
  ExpectFrequency(eight, 35, 9.556212354e-5);
  ExpectFrequency(eight, 63, 3.068925989e-7);
  config.rope.factor = 32;
  config.head_dim = 64;
  const Rope small(config);
  ExpectFrequency(small, 15, 1.290547928e-3);
  ExpectFrequency(small, 16, 4.295567966e-4);
  ExpectFrequency(small, 17, 9.708287803e-5);
  ExpectFrequency(small, 31, 9.418306725e-8);
  EXPECT_EQ(small.attention_factor(), 1);
}

TEST(RopeTest, YarnHasThePublishedRampAndAttentionFactor) {
  ModelConfig config = Config(128, 10000);
  config.rope.type = RopeType::kYarn;
  config.rope.factor = 16;
  config.rope.original_context = 4096;
  const Rope rope(config);
  ExpectFrequency(rope, 20, 5.623413252e-2);
  ExpectFrequency(rope, 21, 4.694086000e-2);
  ExpectFrequency(rope, 33, 4.600435468e-3);
  ExpectFrequency(rope, 45, 1.517716047e-4);
  ExpectFrequency(rope, 46, 8.334508951e-5);
  ExpectFrequency(rope, 63, 7.217387404e-6);
  EXPECT_NEAR(rope.attention_factor(), 1.277258872, 1e-7);
  config.rope.factor = 32;
  EXPECT_NEAR(Rope(config).attention_factor(), 1.346573590, 1.2e-7);
  config.rope.attention_factor = 0.5;
  EXPECT_EQ(Rope(config).attention_factor(), 0.5f);
  config.rope.attention_factor.reset();
  config.rope.mscale = 0.7;
  config.rope.mscale_all_dim = 0.7;
  EXPECT_EQ(Rope(config).attention_factor(), 1.0f);
}

TEST(RopeTest, DynamicBaseFollowsTheLengthBeyondTheLimit) {
  ModelConfig config = Config(128, 10000);
  config.rope.type = RopeType::kDynamic;
  config.rope.factor = 2;
  config.max_position_embeddings = 2048;
  const Rope rope(config);
  const auto base_at = [&rope](int32_t position, int32_t prompt) {
    return std::pow(rope.InverseFrequencies(position, prompt)[32], -2.0);
  };
  EXPECT_NEAR(base_at(2047, 1), 10000, 0.01);
  EXPECT_NEAR(base_at(0, 2048), 10000, 0.01);
  EXPECT_NEAR(base_at(4095, 1), 30527.74, 0.02);
  EXPECT_NEAR(base_at(0, 4096), 30527.74, 0.02);
  EXPECT_NEAR(base_at(8191, 4096), 72195.86, 0.05);
}

TEST(RopeTest, LinearScalingDividesFrequencies) {
  ModelConfig config = Config(128, 10000);
  config.rope.type = RopeType::kLinear;
  config.rope.factor = 4;
  ExpectFrequency(Rope(config), 0, 0.25);
}

TEST(RopeTest, TablesAreThoseOfTheFp32Angle) {
  const Rope rope(Config(64, 10000));
  const std::vector<float> frequencies = rope.InverseFrequencies(0, 1);
  std::vector<float> cos(32), sin(32);
  for (const int32_t position : {0, 1, 255, 4095, 131071, 16777215}) {
    rope.Fill(position, 1, cos, sin);
    for (int32_t i = 0; i < 32; ++i) {
      const float angle = static_cast<float>(position) * frequencies[i];
      EXPECT_NEAR(cos[i], std::cos(static_cast<double>(angle)), 6e-8);
      EXPECT_NEAR(sin[i], std::sin(static_cast<double>(angle)), 6e-8);
    }
  }
}

}  // namespace
}  // namespace caravan::worker
