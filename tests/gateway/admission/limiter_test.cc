#include "gateway/admission/limiter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan::gateway {
namespace {

using ::caravan::testing::HasReason;

const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);

AdmissionRequest Of(std::string tenant, double weight = 1,
                    int32_t priority = 0) {
  return {std::move(tenant), weight, priority, /*cost=*/1};
}

TEST(LimiterTest, StartsInOrderUpToTheBound) {
  Limiter limiter({.max_queued = 8, .max_starting = 2});
  std::vector<TicketId> ids;
  for (int i = 0; i < 4; ++i) {
    ASSERT_OK_AND_ASSIGN(const TicketId id, limiter.Enqueue(Of("a"), kNow));
    ids.push_back(id);
  }
  EXPECT_EQ(limiter.Start(kNow), (std::vector<TicketId>{ids[0], ids[1]}));
  EXPECT_EQ(limiter.queued_count(), 2);
  EXPECT_TRUE(limiter.Start(kNow).empty());
  limiter.Release(ids[1]);
  EXPECT_EQ(limiter.Start(kNow), (std::vector<TicketId>{ids[2]}));
}

TEST(LimiterTest, AFullQueueRefusesWithATimeFromTheRateOfStarts) {
  Limiter limiter({.max_queued = 10, .max_starting = 1});
  absl::Time now = kNow;
  // One start a second, for a minute.
  for (int i = 0; i < 60; ++i, now += absl::Seconds(1)) {
    ASSERT_OK_AND_ASSIGN(const TicketId id, limiter.Enqueue(Of("a"), now));
    limiter.Start(now);
    limiter.Release(id);
  }
  ASSERT_OK(limiter.Enqueue(Of("a"), now));
  limiter.Start(now);
  for (int i = 0; i < 10; ++i) ASSERT_OK(limiter.Enqueue(Of("a"), now));
  const auto refused = limiter.Enqueue(Of("a"), now);
  EXPECT_THAT(refused, HasReason(Reason::kQueueFull));
  const auto retry = RetryAfterOf(refused.status());
  ASSERT_TRUE(retry);
  EXPECT_GT(*retry, absl::Seconds(7));
  EXPECT_LT(*retry, absl::Seconds(13));
}

TEST(LimiterTest, AReleasedPlaceInTheQueueIsFree) {
  Limiter limiter({.max_queued = 1, .max_starting = 0});
  ASSERT_OK_AND_ASSIGN(const TicketId id, limiter.Enqueue(Of("a"), kNow));
  EXPECT_THAT(limiter.Enqueue(Of("a"), kNow), HasReason(Reason::kQueueFull));
  limiter.Release(id);
  EXPECT_OK(limiter.Enqueue(Of("a"), kNow));
}

TEST(LimiterTest, HigherPriorityStartsFirst) {
  Limiter limiter({.max_queued = 8, .max_starting = 1});
  ASSERT_OK(limiter.Enqueue(Of("a"), kNow));
  ASSERT_OK_AND_ASSIGN(const TicketId urgent,
                       limiter.Enqueue(Of("a", 1, 5), kNow));
  EXPECT_EQ(limiter.Start(kNow), std::vector<TicketId>{urgent});
}

TEST(LimiterTest, TenantsShareByWeight) {
  Limiter limiter({.max_queued = 1000, .max_starting = 1});
  std::map<TicketId, char> owner;
  for (int i = 0; i < 90; ++i) {
    ASSERT_OK_AND_ASSIGN(const TicketId a, limiter.Enqueue(Of("a", 2), kNow));
    owner[a] = 'a';
  }
  for (int i = 0; i < 90; ++i) {
    ASSERT_OK_AND_ASSIGN(const TicketId b, limiter.Enqueue(Of("b", 1), kNow));
    owner[b] = 'b';
  }
  std::map<char, int> started;
  for (int i = 0; i < 60; ++i) {
    const std::vector<TicketId> ids = limiter.Start(kNow);
    ASSERT_EQ(ids.size(), 1u);
    ++started[owner[ids[0]]];
    limiter.Release(ids[0]);
  }
  EXPECT_EQ(started['a'], 40);
  EXPECT_EQ(started['b'], 20);
}

TEST(LimiterTest, ATenantThatComesBackHasNoCredit) {
  Limiter limiter({.max_queued = 1000, .max_starting = 1});
  std::map<TicketId, char> owner;
  const auto enqueue = [&](char tenant, int count) {
    for (int i = 0; i < count; ++i) {
      owner[limiter.Enqueue(Of(std::string(1, tenant)), kNow).value()] = tenant;
    }
  };
  std::string order;
  const auto serve = [&](int count) {
    for (int i = 0; i < count; ++i) {
      for (const TicketId id : limiter.Start(kNow)) {
        order += owner[id];
        limiter.Release(id);
      }
    }
  };
  enqueue('a', 20);
  serve(10);
  enqueue('b', 10);
  order.clear();
  serve(8);
  EXPECT_EQ(std::ranges::count(order, 'a'), 4);
  EXPECT_EQ(std::ranges::count(order, 'b'), 4);
}

TEST(LimiterTest, WhatARequestCameToCostIsSettled) {
  Limiter limiter({.max_queued = 10, .max_starting = 1});
  const TicketId first = limiter.Enqueue(Of("a"), kNow).value();
  ASSERT_OK(limiter.Enqueue(Of("a"), kNow));
  ASSERT_OK_AND_ASSIGN(const TicketId b1, limiter.Enqueue(Of("b"), kNow));
  ASSERT_OK_AND_ASSIGN(const TicketId b2, limiter.Enqueue(Of("b"), kNow));
  limiter.Start(kNow);
  limiter.Settle(first, /*cost=*/100, kNow);  // 1 was expected
  limiter.Release(first);
  EXPECT_EQ(limiter.Start(kNow), std::vector<TicketId>{b1});
  limiter.Release(b1);
  EXPECT_EQ(limiter.Start(kNow), std::vector<TicketId>{b2});
}

// "flood" has asked for ten times as much as "a" and "b" each. All that asked
// has ended.
class FloodTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 200; ++i, now_ += absl::Seconds(0.1)) {
      Serve("flood");
      if (i % 10 == 0) Serve("a");
      if (i % 10 == 5) Serve("b");
    }
    // The newest is looked at within a tenth of a second.
    now_ += absl::Seconds(0.1);
  }

  void Serve(const char* tenant) {
    const TicketId id = limiter_.Enqueue(Of(tenant), now_).value();
    limiter_.Start(now_);
    limiter_.OnFirstToken(id, now_);
    limiter_.Release(id);
  }

  bool IsOverShare(const AdmissionRequest& request) {
    const TicketId id = limiter_.Enqueue(request, now_).value();
    limiter_.Start(now_);
    const bool over = limiter_.over_share(id);
    limiter_.Release(id);
    return over;
  }

  std::vector<TicketId> Flood(int count) {
    std::vector<TicketId> ids;
    for (int i = 0; i < count; ++i) {
      ids.push_back(limiter_.Enqueue(Of("flood"), now_).value());
    }
    return ids;
  }

  Limiter limiter_{{.max_queued = 1000, .max_starting = 100}};
  absl::Time now_ = kNow;
};

TEST_F(FloodTest, IsOverItsShareAndTheOthersAreNot) {
  EXPECT_TRUE(IsOverShare(Of("flood")));
  EXPECT_FALSE(IsOverShare(Of("a")));
  EXPECT_FALSE(IsOverShare(Of("b")));
  EXPECT_FALSE(IsOverShare(Of("c")));  // has not been here before
}

TEST_F(FloodTest, IsForgottenWithTime) {
  now_ += absl::Hours(1);
  EXPECT_FALSE(IsOverShare(Of("flood")));
}

TEST_F(FloodTest, IsWhatItsWeightMakesIt) {
  EXPECT_FALSE(IsOverShare(Of("flood", /*weight=*/20)));
}

TEST_F(FloodTest, ThatBeganAloneIsFoundOutWhenOthersCome) {
  now_ += absl::Hours(1);
  Flood(100);
  const size_t alone = limiter_.Start(now_).size();
  EXPECT_LT(alone, 20u);
  for (int i = 0; i < 10; ++i, now_ += absl::Seconds(0.1)) {
    if (i % 2 == 0) Serve("a");
    if (i % 2 == 1) Serve("b");
  }
  limiter_.OnPlaced("w1", now_);
  for (int i = 2; i < 20; ++i) limiter_.OnPlaced("w" + std::to_string(i), now_);
  const std::vector<TicketId> later = limiter_.Start(now_);
  ASSERT_FALSE(later.empty());
  EXPECT_TRUE(limiter_.over_share(later.front()));
}

TEST_F(FloodTest, WaitsHereAndOthersPassIt) {
  Flood(50);
  const auto started = static_cast<int32_t>(limiter_.Start(now_).size());
  EXPECT_EQ(started, limiter_.over_share_window());
  EXPECT_LT(started, 50);
  for (const char* tenant : {"a", "b", "c", "a", "b", "c"}) {
    const TicketId id = limiter_.Enqueue(Of(tenant), now_).value();
    EXPECT_EQ(limiter_.Start(now_), std::vector<TicketId>{id});
  }
}

TEST_F(FloodTest, HasTwoAtEachWorker) {
  for (const char* worker : {"w1", "w2", "w3", "w4", "w5", "w6"}) {
    limiter_.OnPlaced(worker, now_);
  }
  EXPECT_EQ(limiter_.over_share_window(), 12);
  limiter_.OnPlaced("w1", now_ + absl::Minutes(5));  // the others are silent
  EXPECT_LT(limiter_.over_share_window(), 12);
}

TEST_F(FloodTest, HasMoreAtWorkersThatBeginWithItAtOnceAndLessWhereItWaits) {
  const int32_t least = limiter_.over_share_window();
  Flood(900);
  for (int i = 0; i < 40; ++i) {
    for (const TicketId id : limiter_.Start(now_)) {
      limiter_.OnFirstToken(id, now_);
      limiter_.Release(id);
    }
  }
  const int32_t most = limiter_.over_share_window();
  EXPECT_GT(most, 4 * least);
  Flood(100);
  for (const TicketId id : limiter_.Start(now_)) {
    limiter_.OnWaitAtWorker(id);
    limiter_.OnWaitAtWorker(id);  // told twice counts once
  }
  EXPECT_LT(limiter_.over_share_window(), most / 2);
}

TEST_F(FloodTest, DoesNotFillTheQueueForOthersThatStartAtOnce) {
  Limiter& limiter = limiter_;
  for (int i = 0; limiter.queued_count() < 1000; ++i) {
    ASSERT_OK(limiter.Enqueue(Of("flood"), now_));
    limiter.Start(now_);
  }
  EXPECT_THAT(limiter.Enqueue(Of("flood"), now_),
              HasReason(Reason::kQueueFull));
  ASSERT_OK_AND_ASSIGN(const TicketId a, limiter.Enqueue(Of("a"), now_));
  EXPECT_EQ(limiter.Start(now_), std::vector<TicketId>{a});
}

TEST(LimiterTest, ALoneTenantIsNotOverItsShare) {
  Limiter limiter({});
  absl::Time now = kNow;
  for (int i = 0; i < 100; ++i, now += absl::Seconds(0.2)) {
    const TicketId id = limiter.Enqueue(Of("a"), now).value();
    EXPECT_EQ(limiter.Start(now).size(), 1u);
    EXPECT_FALSE(limiter.over_share(id));
    limiter.Release(id);
  }
}

TEST(LimiterTest, AFewRequestsAreNoFlood) {
  Limiter limiter({});
  for (const char* tenant : {"a", "b", "c"}) {
    ASSERT_OK(limiter.Enqueue(Of(tenant), kNow));
  }
  for (int i = 1; i < 4; ++i) {
    const TicketId id =
        limiter.Enqueue(Of("a"), kNow + absl::Seconds(i)).value();
    limiter.Start(kNow + absl::Seconds(i));
    EXPECT_FALSE(limiter.over_share(id));
  }
}

TEST(LimiterTest, ABurstOfAllAtOnceIsNoFlood) {
  Limiter limiter({.max_queued = 1000, .max_starting = 1000});
  for (int i = 0; i < 50; ++i) {
    for (const char* tenant : {"a", "b", "c"}) {
      const TicketId id = limiter.Enqueue(Of(tenant), kNow).value();
      limiter.Start(kNow);
      EXPECT_FALSE(limiter.over_share(id));
      limiter.OnFirstToken(id, kNow);
    }
  }
}

TEST(LimiterTest, WithoutKeysNothingButTheBoundKeepsARequestHere) {
  Limiter limiter({.max_queued = 1000, .max_starting = 100});
  for (int i = 0; i < 150; ++i) ASSERT_OK(limiter.Enqueue(Of(""), kNow));
  const std::vector<TicketId> started = limiter.Start(kNow);
  EXPECT_EQ(started.size(), 100u);
  for (const TicketId id : started) EXPECT_FALSE(limiter.over_share(id));
}

TEST(LimiterTest, ATenantThatIsAloneKeepsWorkersBusyAndNoMore) {
  Limiter limiter({.max_queued = 1000, .max_starting = 100});
  for (int i = 0; i < 150; ++i) ASSERT_OK(limiter.Enqueue(Of("a"), kNow));
  EXPECT_EQ(static_cast<int32_t>(limiter.Start(kNow).size()),
            limiter.tenant_window());
  ASSERT_OK_AND_ASSIGN(const TicketId b, limiter.Enqueue(Of("b"), kNow));
  EXPECT_EQ(limiter.Start(kNow), std::vector<TicketId>{b});
}

// One place, one start a second for a minute, each with its first token after
// a second; then ten that wait.
class DeadlineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 60; ++i) {
      const TicketId id = limiter_.Enqueue(Of("a"), now_).value();
      limiter_.Start(now_);
      now_ += absl::Seconds(1);
      limiter_.OnFirstToken(id, now_);
      limiter_.Release(id);
    }
    for (int i = 0; i < 11; ++i) ASSERT_OK(limiter_.Enqueue(Of("a"), now_));
    ASSERT_EQ(limiter_.Start(now_).size(), 1u);
  }

  AdmissionRequest Within(std::string tenant, absl::Duration time) const {
    AdmissionRequest request = Of(std::move(tenant));
    request.deadline = now_ + time;
    return request;
  }

  Limiter limiter_{{.max_queued = 100, .max_starting = 1}};
  absl::Time now_ = kNow;
};

TEST_F(DeadlineTest, ARequestWhoseTimeWouldBeOverInTheQueueIsRefusedAtOnce) {
  const auto refused = limiter_.Enqueue(Within("a", absl::Seconds(5)), now_);
  EXPECT_THAT(refused, HasReason(Reason::kQueueFull));
  EXPECT_EQ(limiter_.queued_count(), 10);
  // About eleven starts and a second for the first token, less what it has.
  const auto retry = RetryAfterOf(refused.status());
  ASSERT_TRUE(retry);
  EXPECT_GT(*retry, absl::Seconds(4));
  EXPECT_LT(*retry, absl::Seconds(10));
}

TEST_F(DeadlineTest, ARequestWithTimeForTheQueueWaits) {
  EXPECT_OK(limiter_.Enqueue(Within("a", absl::Seconds(30)), now_));
}

TEST_F(DeadlineTest, AnotherTenantsQueueIsNotItsOwn) {
  EXPECT_OK(limiter_.Enqueue(Within("b", absl::Seconds(5)), now_));
}

TEST_F(DeadlineTest, AHigherPriorityPassesTheQueue) {
  AdmissionRequest urgent = Within("a", absl::Seconds(5));
  urgent.priority = 1;
  EXPECT_OK(limiter_.Enqueue(urgent, now_));
}

TEST_F(DeadlineTest, WhatNobodyServesIsNotRefusedByAnEstimate) {
  const absl::Time later = now_ + absl::Hours(1);
  AdmissionRequest request = Of("a");
  request.deadline = later + absl::Seconds(5);
  EXPECT_OK(limiter_.Enqueue(request, later));
}

}  // namespace
}  // namespace caravan::gateway
