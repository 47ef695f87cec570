#include "worker/ops/cpu/thread_team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cfenv>
#include <memory>
#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan::worker::cpu {
namespace {

TEST(ThreadTeamTest, EveryMemberRunsEveryBodyOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ThreadTeam> team,
                         ThreadTeam::Create(threads, /*pin=*/false));
    std::vector<int> runs(threads);
    for (int i = 0; i < 500; ++i) {
      team->Run([&](int member) { ++runs[member]; });
    }
    EXPECT_EQ(runs, std::vector<int>(threads, 500));
  }
}

TEST(ThreadTeamTest, ABarrierHoldsUntilAllHaveCome) {
  for (const bool pin : {false, true}) {
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ThreadTeam> team,
                         ThreadTeam::Create(4, pin));
    std::vector<int> written(4);
    std::atomic<int> wrong = 0;
    team->Run([&](int member) {
      for (int round = 1; round <= 300; ++round) {
        written[member] = round;
        team->Barrier(member);
        for (const int value : written) wrong += value != round ? 1 : 0;
        team->Barrier(member);
      }
    });
    EXPECT_EQ(wrong, 0);
  }
}

TEST(ThreadTeamTest, MembersRoundToNearestWhateverTheCallerHasSet) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ThreadTeam> team,
                       ThreadTeam::Create(2, /*pin=*/false));
  std::fesetround(FE_UPWARD);
  std::vector<int> modes(2);
  team->Run([&](int member) { modes[member] = std::fegetround(); });
  EXPECT_EQ(std::fegetround(), FE_UPWARD);
  std::fesetround(FE_TONEAREST);
  EXPECT_EQ(modes[1], FE_TONEAREST);
}

TEST(ThreadTeamTest, RefusesNoThreadsAndTooMany) {
  EXPECT_THAT(ThreadTeam::Create(0, false),
              caravan::testing::HasReason(Reason::kInvalidField));
  EXPECT_THAT(ThreadTeam::Create(kMaxThreads + 1, false),
              caravan::testing::HasReason(Reason::kInvalidField));
}

TEST(WorkSharesTest, DealsOutEveryIntegerOnce) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ThreadTeam> team,
                       ThreadTeam::Create(3, /*pin=*/false));
  for (const int64_t count : {0, 1, 2, 3, 5, 1000}) {
    WorkShares shares;
    shares.Reset(count, 3);
    std::vector<std::atomic<int>> taken(count);
    team->Run([&](int member) {
      for (int64_t i; (i = shares.Next(member)) >= 0;) ++taken[i];
    });
    for (const std::atomic<int>& times : taken) EXPECT_EQ(times, 1);
  }
}

TEST(WorkSharesTest, WhoIsDoneTakesFromTheEndOfOthers) {
  WorkShares shares;
  shares.Reset(10, 2);
  EXPECT_EQ(shares.Next(0), 0);
  EXPECT_EQ(shares.Next(1), 5);
  for (int64_t i = 1; i < 5; ++i) EXPECT_EQ(shares.Next(0), i);
  EXPECT_EQ(shares.Next(0), 9);
  EXPECT_EQ(shares.Next(0), 8);
  EXPECT_EQ(shares.Next(1), 6);
  EXPECT_EQ(shares.Next(1), 7);
  EXPECT_EQ(shares.Next(1), -1);
}

}  // namespace
}  // namespace caravan::worker::cpu
