#include "worker/tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace caravan::worker {
namespace {

TEST(DTypeTest, EveryHalfComesBackFromFloat) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const Fp16 half = {static_cast<uint16_t>(bits)};
    const float wide = ToFloat(half);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(ToFloat(ToFp16(wide))));
    } else {
      EXPECT_EQ(ToFp16(wide).bits, half.bits) << bits;
    }
  }
}

TEST(DTypeTest, EveryBf16ComesBackFromFloat) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const Bf16 narrow = {static_cast<uint16_t>(bits)};
    const float wide = ToFloat(narrow);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(ToFloat(ToBf16(wide))));
    } else {
      EXPECT_EQ(ToBf16(wide).bits, narrow.bits) << bits;
    }
  }
}

TEST(DTypeTest, HalfRoundsToNearestWithTiesToEven) {
  EXPECT_EQ(ToFloat(ToFp16(1.0f + 0x1p-11f)), 1.0f);  // tie: even is below
  EXPECT_EQ(ToFloat(ToFp16(1.0f + 0x3p-11f)), 1.0f + 0x2p-10f);
  EXPECT_EQ(ToFloat(ToFp16(1.0f + 0x1.2p-11f)), 1.0f + 0x1p-10f);
  EXPECT_EQ(ToFloat(ToFp16(0x1p-25f)), 0.0f);  // tie between 0 and subnormal
  EXPECT_EQ(ToFloat(ToFp16(0x1.8p-24f)), 0x1p-23f);
}

TEST(DTypeTest, HalfOverflowsToInfinity) {
  EXPECT_EQ(ToFloat(ToFp16(65519.0f)), 65504.0f);
  EXPECT_EQ(ToFloat(ToFp16(65520.0f)), std::numeric_limits<float>::infinity());
  EXPECT_EQ(ToFloat(ToFp16(-1e9f)), -std::numeric_limits<float>::infinity());
}

TEST(DTypeTest, Bf16RoundsToNearestWithTiesToEven) {
  EXPECT_EQ(ToFloat(ToBf16(1.0f + 0x1p-8f)), 1.0f);
  EXPECT_EQ(ToFloat(ToBf16(1.0f + 0x3p-8f)), 1.0f + 0x2p-7f);
}

}  // namespace
}  // namespace caravan::worker
