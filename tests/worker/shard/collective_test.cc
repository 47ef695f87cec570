#include "worker/shard/collective.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <limits>

#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

constexpr int64_t kRows = 3;
constexpr int64_t kCols = 1000;

// Sums whose order shows in the bits.
float Value(int rank, int64_t i) {
  return (rank % 2 == 0 ? 1.0f : 1e-4f) * static_cast<float>(i * 37 % 101 + 1) /
         7.0f;
}

std::vector<float> Reduce(int ranks, bool flush, float scale) {
  auto team = cpu::ThreadTeam::Create(ranks, /*pin=*/false, /*lead=*/true);
  EXPECT_OK(team);
  HostCollective collective(team->get());
  std::vector<std::vector<float>> partials(static_cast<size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    for (int64_t i = 0; i < kRows * kCols; ++i) {
      partials[static_cast<size_t>(rank)].push_back(scale * Value(rank, i));
    }
  }
  const std::vector<float> bias(kCols, scale * 0.1f);
  std::vector<float> x(kRows * kCols, scale);
  (*team)->Run([&](int rank) {
    EXPECT_OK(collective.AllReduceAdd(
        rank, {.partial = View<const float>(
                   partials[static_cast<size_t>(rank)].data(), kRows, kCols),
               .bias = bias,
               .flush = flush,
               .x = View<float>(x.data(), kRows, kCols)}));
  });
  return x;
}

TEST(HostCollectiveTest, PartialsAreAddedInTheOrderOfTheTree) {
  const std::vector<float> two = Reduce(2, false, 1);
  const std::vector<float> four = Reduce(4, false, 1);
  const std::vector<float> eight = Reduce(8, false, 1);
  for (int64_t i = 0; i < kRows * kCols; ++i) {
    float v[8];
    for (int rank = 0; rank < 8; ++rank) v[rank] = Value(rank, i);
    const size_t at = static_cast<size_t>(i);
    ASSERT_EQ(two[at], 1 + ((v[0] + v[1]) + 0.1f));
    ASSERT_EQ(four[at], 1 + (((v[0] + v[1]) + (v[2] + v[3])) + 0.1f));
    ASSERT_EQ(eight[at], 1 + ((((v[0] + v[1]) + (v[2] + v[3])) +
                               ((v[4] + v[5]) + (v[6] + v[7]))) +
                              0.1f));
  }
}

TEST(HostCollectiveTest, SumsOfBf16ChainsFlushWhatIsSubnormal) {
  const float tiny = std::numeric_limits<float>::min() / 64;
  const std::vector<float> kept = Reduce(2, false, tiny);
  const std::vector<float> flushed = Reduce(2, true, tiny);
  int64_t differ = 0;
  for (size_t i = 0; i < kept.size(); ++i) differ += kept[i] != flushed[i];
  EXPECT_GT(differ, kRows * kCols / 2);
}

}  // namespace
}  // namespace caravan::worker
