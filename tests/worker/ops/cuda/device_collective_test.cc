#include "worker/ops/cuda/device_collective.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <memory>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/worker/ops/cuda/emulated_device.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/shard/collective.h"

namespace caravan::worker::cuda {
namespace {

constexpr int64_t kRows = 3;
constexpr int64_t kCols = 300;  // the last block of threads has work for some

// Devices that meet, and a thread for each.
class Ranks {
 public:
  explicit Ranks(int count)
      : memory_(HostExchange::MemoryBytes(count)),
        exchange_(count, memory_.data()),
        team_(*cpu::ThreadTeam::Create(count, /*pin=*/false, /*lead=*/true)) {
    for (int rank = 0; rank < count; ++rank) {
      EmulatedOptions options;
      options.exchange = &exchange_;
      options.rank = rank;
      devices_.push_back(std::make_unique<EmulatedDevice>(options));
      collectives_.push_back(
          std::make_unique<DeviceCollective>(devices_.back().get(), count));
    }
  }
  int count() const { return team_->size(); }
  cpu::ThreadTeam& team() { return *team_; }
  EmulatedDevice& device(int rank) { return *devices_[rank]; }
  DeviceCollective& collective(int rank) { return *collectives_[rank]; }

  // The rank's part, in its device's memory.
  View<float> Part(int rank, const std::vector<float>& values, int64_t cols) {
    const View<float> part =
        *collective(rank).Part(std::ssize(values) / cols, cols);
    std::copy(values.begin(), values.end(), part.data);
    return part;
  }

 private:
  std::vector<std::byte> memory_;
  HostExchange exchange_;
  std::unique_ptr<cpu::ThreadTeam> team_;
  std::vector<std::unique_ptr<EmulatedDevice>> devices_;
  std::vector<std::unique_ptr<DeviceCollective>> collectives_;
};

std::vector<uint32_t> Bits(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float value : values) {
    bits.push_back(std::bit_cast<uint32_t>(value));
  }
  return bits;
}

// Partial sums whose order shows in the bits.
std::vector<float> PartialOf(int rank, float scale) {
  std::vector<float> partial;
  for (int64_t i = 0; i < kRows * kCols; ++i) {
    partial.push_back(scale * (rank % 2 == 0 ? 1.0f : -1e-4f) *
                      static_cast<float>(i * 37 % 101 + 1 + rank) / 7.0f);
  }
  return partial;
}

std::vector<float> OnHost(int ranks, bool flush, float scale,
                          const std::vector<float>& bias) {
  const auto team = *cpu::ThreadTeam::Create(ranks, false, true);
  HostCollective collective(team.get());
  std::vector<std::vector<float>> partials;
  for (int rank = 0; rank < ranks; ++rank) {
    partials.push_back(PartialOf(rank, scale));
  }
  std::vector<float> x(kRows * kCols, scale);
  team->Run([&](int rank) {
    EXPECT_OK(collective.AllReduceAdd(
        rank, {.partial = View<const float>(
                   partials[static_cast<size_t>(rank)].data(), kRows, kCols),
               .bias = bias,
               .flush = flush,
               .x = View<float>(x.data(), kRows, kCols)}));
  });
  return x;
}

void ExpectTheHostsBits(int count, bool flush, float scale, bool biased) {
  const std::vector<float> bias(biased ? kCols : 0, scale * 0.1f);
  const auto expected = Bits(OnHost(count, flush, scale, bias));
  Ranks ranks(count);
  ranks.team().Run([&](int rank) {
    const View<float> part = ranks.Part(rank, PartialOf(rank, scale), kCols);
    std::vector<float> x(kRows * kCols, scale);
    EXPECT_OK(ranks.collective(rank).AllReduceAdd(
        rank, {.partial = part,
               .bias = bias,
               .flush = flush,
               .x = View<float>(x.data(), kRows, kCols)}));
    EXPECT_EQ(Bits(x), expected);
  });
}

TEST(DeviceCollectiveTest, EveryRankHasTheBitsOfTheHostsSum) {
  for (const int count : {2, 4, 8}) {
    ExpectTheHostsBits(count, /*flush=*/false, 1, /*biased=*/true);
    ExpectTheHostsBits(count, /*flush=*/false, 1, /*biased=*/false);
  }
}

TEST(DeviceCollectiveTest, SubnormalSumsAreFlushedWhereTheHostDoes) {
  const float tiny = std::numeric_limits<float>::min() / 64;
  ExpectTheHostsBits(4, /*flush=*/false, tiny, /*biased=*/true);
  ExpectTheHostsBits(4, /*flush=*/true, tiny, /*biased=*/true);
}

TEST(DeviceCollectiveTest, RowsComeFromTheRankThatHasThem) {
  constexpr int64_t kTableRows = 70;  // 16, 16, 16 and 22 of them
  const std::vector<int32_t> ids = {15, 69, 16, 48, 0, 47};
  Ranks ranks(4);
  ranks.team().Run([&](int rank) {
    const std::vector<float> values(ids.size() * kCols,
                                    static_cast<float>(rank));
    const View<float> part = ranks.Part(rank, values, kCols);
    std::vector<float> x(ids.size() * kCols);
    EXPECT_OK(ranks.collective(rank).PickRows(part, ids.data(), kTableRows,
                                              {x.data(), kCols}));
    const std::vector<float> owners = {0, 3, 1, 3, 0, 2};
    for (size_t t = 0; t < ids.size(); ++t) {
      EXPECT_EQ(x[t * kCols], owners[t]) << t;
      EXPECT_EQ(x[t * kCols + kCols - 1], owners[t]) << t;
    }
  });
}

TEST(DeviceCollectiveTest, ColumnsOfAllRanksAreSideBySide) {
  constexpr int64_t kColumns = 70;
  Ranks ranks(4);
  const auto borders = RowsOfRanks(kColumns, 4);
  ranks.team().Run([&](int rank) {
    DeviceCollective& collective = ranks.collective(rank);
    const int64_t widest = collective.WidestPart(kColumns);
    EXPECT_EQ(widest, 22);
    std::vector<float> values(2 * widest, -1);
    for (int64_t c = borders[rank]; c < borders[rank + 1]; ++c) {
      values[c - borders[rank]] = static_cast<float>(c);
      values[widest + c - borders[rank]] = static_cast<float>(100 + c);
    }
    const View<float> part = ranks.Part(rank, values, widest);
    std::vector<float> y(2 * kColumns);
    EXPECT_OK(collective.PlaceColumns(part, kColumns, {y.data(), kColumns}));
    for (int64_t c = 0; c < kColumns; ++c) {
      EXPECT_EQ(y[c], static_cast<float>(c));
      EXPECT_EQ(y[kColumns + c], static_cast<float>(100 + c));
    }
  });
}

// More rows than one gather takes.
TEST(DeviceCollectiveTest, LongStepsAreGatheredInPieces) {
  constexpr int64_t kLong = 5;
  constexpr int64_t kWide = 300000;
  Ranks ranks(2);
  ranks.team().Run([&](int rank) {
    std::vector<float> values;
    for (int64_t t = 0; t < kLong; ++t) {
      values.insert(values.end(), kWide, static_cast<float>(10 * t + rank));
    }
    const View<float> part = ranks.Part(rank, values, kWide);
    const std::vector<int32_t> ids = {0, 31, 16, 15, 20};
    std::vector<float> x(kLong * kWide);
    EXPECT_OK(ranks.collective(rank).PickRows(part, ids.data(), 32,
                                              {x.data(), kWide}));
    const std::vector<float> expected = {0, 11, 21, 30, 41};
    for (int64_t t = 0; t < kLong; ++t) {
      EXPECT_EQ(x[t * kWide + kWide / 2], expected[t]) << t;
    }
  });
}

}  // namespace
}  // namespace caravan::worker::cuda
