#include "worker/ops/cuda/host_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "common/status/errors.h"
#include "tests/support/status_matchers.h"

namespace caravan::worker::cuda {
namespace {

using ::caravan::testing::HasReason;
using ::testing::HasSubstr;

class Copies final : public ExchangeCopies {
 public:
  absl::Status ToHost(void* target, const void* source, size_t n) override {
    std::memcpy(target, source, n);
    return error;
  }
  absl::Status FromHost(void* target, const void* source, size_t n) override {
    std::memcpy(target, source, n);
    return absl::OkStatus();
  }
  absl::Status error;
};

// More than a piece, and not a multiple of it.
constexpr size_t kWords = HostExchange::kPieceBytes / 4 * 2 + 77;

TEST(HostExchangeTest, EveryRankGetsWhatAllGaveTurnAfterTurn) {
  constexpr int kRanks = 3;
  std::vector<std::byte> memory(HostExchange::MemoryBytes(kRanks));
  HostExchange exchange(kRanks, memory.data());
  const auto run = [&](int rank) {
    Copies copies;
    for (uint32_t turn = 0; turn < 4; ++turn) {
      std::vector<uint32_t> part(kWords), all(kRanks * kWords);
      std::iota(part.begin(), part.end(), turn * 1000 + rank);
      EXPECT_OK(exchange.Gather(
          rank, {part.data(), all.data(), kWords * sizeof(uint32_t)}, copies));
      for (uint32_t r = 0; r < kRanks; ++r) {
        for (size_t i = 0; i < kWords; ++i) {
          ASSERT_EQ(all[r * kWords + i], turn * 1000 + r + i);
        }
      }
    }
  };
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < kRanks; ++rank) threads.emplace_back(run, rank);
}

TEST(HostExchangeTest, ARankThatFailsEndsTheOthersWait) {
  std::vector<std::byte> memory(HostExchange::MemoryBytes(2));
  HostExchange exchange(2, memory.data());
  uint32_t part = 1;
  uint32_t all[2];
  const PeerGather gather = {&part, all, sizeof(part)};
  absl::Status waited;
  std::jthread([&] {
    std::jthread waiting([&] {
      Copies copies;
      uint32_t gathered[2];
      waited = exchange.Gather(0, {&part, gathered, sizeof(part)}, copies);
    });
    Copies copies;
    copies.error = MakeError(Reason::kInternal, "lost");
    EXPECT_THAT(exchange.Gather(1, gather, copies),
                HasReason(Reason::kInternal, HasSubstr("lost")));
  }).join();
  EXPECT_THAT(waited, HasReason(Reason::kInternal, HasSubstr("lost")));
  Copies copies;
  EXPECT_FALSE(exchange.Gather(0, gather, copies).ok()) << "and stays so";
}

}  // namespace
}  // namespace caravan::worker::cuda
