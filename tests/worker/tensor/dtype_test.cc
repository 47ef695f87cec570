#include "worker/tensor/dtype.h"

#include <gtest/gtest.h>

#include <algorithm>
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

TEST(DTypeTest, EveryFp8ComesBackFromFloat) {
  for (uint32_t bits = 0; bits < 256; ++bits) {
    const Fp8 narrow = {static_cast<uint8_t>(bits)};
    const float wide = ToFloat(narrow);
    EXPECT_EQ(std::isnan(wide), (bits & 0x7f) == 0x7f) << bits;
    EXPECT_EQ(ToFp8(wide).bits, bits);
  }
}

TEST(DTypeTest, Fp8AreTheNumbersOfTheirFields) {
  for (uint32_t bits = 0; bits < 127; ++bits) {
    const int exponent = static_cast<int>(bits >> 3);
    const int fraction = static_cast<int>(bits & 7);
    const float expected =
        exponent == 0
            ? std::ldexp(static_cast<float>(fraction), -9)
            : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
    EXPECT_EQ(ToFloat(Fp8{static_cast<uint8_t>(bits)}), expected);
    EXPECT_EQ(ToFloat(Fp8{static_cast<uint8_t>(bits | 0x80)}), -expected);
  }
}

// Between two neighbours: below the middle down, above it up, in it to even.
TEST(DTypeTest, Fp8RoundsToNearestWithTiesToEven) {
  for (uint32_t bits = 0; bits < 126; ++bits) {
    const float low = ToFloat(Fp8{static_cast<uint8_t>(bits)});
    const float high = ToFloat(Fp8{static_cast<uint8_t>(bits + 1)});
    const float middle = (low + high) / 2;
    EXPECT_EQ(ToFp8(std::nextafter(middle, low)).bits, bits);
    EXPECT_EQ(ToFp8(middle).bits, bits + bits % 2);
    EXPECT_EQ(ToFp8(std::nextafter(middle, high)).bits, bits + 1);
    EXPECT_EQ(ToFp8(-middle).bits, (bits + bits % 2) | 0x80);
  }
}

// By the exact distance, for every half and its opposite.
TEST(DTypeTest, EveryHalfRoundsToTheNearestFp8) {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const float value = ToFloat(Fp16{static_cast<uint16_t>(bits)});
    const int near = ToFp8(value).bits;
    const auto distance = [value](int code) {
      return std::fabs(static_cast<double>(value) -
                       ToFloat(Fp8{static_cast<uint8_t>(code)}));
    };
    ASSERT_LE(distance(near), distance(std::max(near - 1, 0)));
    ASSERT_LE(distance(near), distance(std::min(near + 1, 126)));
    ASSERT_EQ(ToFp8(-value).bits, near | 0x80);
  }
}

TEST(DTypeTest, Fp8StaysWithinItsLargestValue) {
  EXPECT_EQ(ToFloat(ToFp8(464.0f)), 448.0f);
  EXPECT_EQ(ToFloat(ToFp8(-1e9f)), -448.0f);
  EXPECT_EQ(ToFloat(ToFp8(std::numeric_limits<float>::infinity())), 448.0f);
  EXPECT_EQ(ToFp8(-0.0f).bits, 0x80);
}

TEST(DTypeTest, Bf16RoundsToNearestWithTiesToEven) {
  EXPECT_EQ(ToFloat(ToBf16(1.0f + 0x1p-8f)), 1.0f);
  EXPECT_EQ(ToFloat(ToBf16(1.0f + 0x3p-8f)), 1.0f + 0x2p-7f);
}

}  // namespace
}  // namespace caravan::worker
