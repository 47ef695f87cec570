#include "worker/server/handle_set.h"

#include <gtest/gtest.h>

#include <limits>

namespace caravan::worker {
namespace {

TEST(HandleSetTest, AHandleEntersOnce) {
  HandleSet set;
  EXPECT_TRUE(set.Insert(7));
  EXPECT_FALSE(set.Insert(7));
  EXPECT_TRUE(set.Contains(7));
  EXPECT_FALSE(set.Contains(6));
  EXPECT_FALSE(set.Contains(8));
}

TEST(HandleSetTest, CountingUpwardsTakesOneRange) {
  HandleSet set;
  for (uint64_t handle = 1; handle <= 1000; ++handle) {
    EXPECT_TRUE(set.Insert(handle));
  }
  EXPECT_EQ(set.range_count(), 1u);
}

TEST(HandleSetTest, GapsCloseWhenTheirHandlesCome) {
  HandleSet set;
  for (const uint64_t handle : {5, 1, 3, 4, 2}) EXPECT_TRUE(set.Insert(handle));
  EXPECT_EQ(set.range_count(), 1u);
  for (const uint64_t handle : {1, 2, 3, 4, 5}) {
    EXPECT_FALSE(set.Insert(handle));
  }
}

TEST(HandleSetTest, TheEndsOfTheRangeAreHandlesToo) {
  HandleSet set;
  constexpr uint64_t kGreatest = std::numeric_limits<uint64_t>::max();
  EXPECT_TRUE(set.Insert(0));
  EXPECT_TRUE(set.Insert(kGreatest));
  EXPECT_EQ(set.range_count(), 2u);
  EXPECT_FALSE(set.Insert(0));
  EXPECT_FALSE(set.Insert(kGreatest));
}

TEST(HandleSetTest, TooManyGapsCloseFromBelow) {
  HandleSet set(/*max_ranges=*/3);
  for (const uint64_t handle : {10, 20, 30, 40}) set.Insert(handle);
  EXPECT_EQ(set.range_count(), 3u);
  EXPECT_FALSE(set.Insert(15));
  EXPECT_TRUE(set.Insert(25));
}

}  // namespace
}  // namespace caravan::worker
