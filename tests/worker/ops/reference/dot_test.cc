#include "worker/ops/reference/dot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace caravan::worker::reference {
namespace {

std::vector<float> Values(int count, float seed) {
  std::vector<float> values(count);
  for (int i = 0; i < count; ++i) {
    values[i] = std::fmod(seed * static_cast<float>(i * i + 3), 1.7f) - 0.8f;
  }
  return values;
}

TEST(DotTest, ChainIsAscendingFusedMultiplyAdds) {
  const std::vector<float> a = Values(37, 0.37f);
  const std::vector<float> b = Values(37, 0.61f);
  float expected = 0.25f;
  for (int i = 0; i < 37; ++i) expected = std::fma(a[i], b[i], expected);
  EXPECT_EQ(Chain(a.data(), 1, b.data(), 1, 37, 0.25f), expected);
  EXPECT_EQ(Chain(a.data(), 1, b.data(), 1, 0, 0.25f), 0.25f);
}

TEST(DotTest, StridesStepOverElements) {
  const std::vector<float> a = Values(40, 0.37f);
  const std::vector<float> b = Values(40, 0.61f);
  float expected = 0;
  for (int i = 0; i < 10; ++i) {
    expected = std::fma(a[4 * i], b[3 * i], expected);
  }
  EXPECT_EQ(Chain(a.data(), 4, b.data(), 3, 10, 0), expected);
}

TEST(DotTest, RowsAreChainsWhateverTheirNumber) {
  const std::vector<float> x = Values(19, 0.37f);
  const std::vector<float> w = Values(23 * 21, 0.61f);
  for (int rows = 0; rows <= 21; ++rows) {
    std::vector<float> out(rows);
    ChainRows(x.data(), w.data(), 23, rows, 19, out.data());
    for (int r = 0; r < rows; ++r) {
      EXPECT_EQ(out[r], Chain(x.data(), 1, w.data() + 23 * r, 1, 19, 0));
    }
  }
}

TEST(DotTest, InstructionsAndPortableCodeGiveEqualBits) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("fma")) GTEST_SKIP() << "no FMA instructions";
#endif
  const std::vector<float> x = Values(101, 0.37f);
  const std::vector<float> w = Values(101 * 9, 0.61f);
  std::vector<float> fast(9), portable(9);
  ChainRowsFma(x.data(), w.data(), 101, 9, 101, fast.data());
  ChainRowsPortable(x.data(), w.data(), 101, 9, 101, portable.data());
  EXPECT_EQ(fast, portable);
  EXPECT_EQ(ChainFma(x.data(), 1, w.data(), 1, 101, 0),
            ChainPortable(x.data(), 1, w.data(), 1, 101, 0));
}

}  // namespace
}  // namespace caravan::worker::reference
