#include "gateway/admission/limiter.h"

#include <gtest/gtest.h>

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

TEST(LimiterTest, ATenantThatWasAwayHasNoCredit) {
  Limiter limiter({.max_queued = 1000, .max_starting = 1});
  for (int i = 0; i < 50; ++i) {
    ASSERT_OK_AND_ASSIGN(const TicketId id, limiter.Enqueue(Of("a"), kNow));
    limiter.Start(kNow);
    limiter.Release(id);
  }
  ASSERT_OK_AND_ASSIGN(const TicketId a, limiter.Enqueue(Of("a"), kNow));
  for (int i = 0; i < 3; ++i) ASSERT_OK(limiter.Enqueue(Of("b"), kNow));
  std::vector<TicketId> order;
  for (int i = 0; i < 4; ++i) {
    for (const TicketId id : limiter.Start(kNow)) {
      order.push_back(id);
      limiter.Release(id);
    }
  }
  ASSERT_EQ(order.size(), 4u);
  EXPECT_TRUE(order[0] == a || order[1] == a) << "a waits behind one of b";
}

}  // namespace
}  // namespace caravan::gateway
