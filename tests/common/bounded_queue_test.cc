#include "common/bounded_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <thread>
#include <vector>

namespace caravan {
namespace {

TEST(BoundedQueueTest, GivesItemsInOrder) {
  BoundedQueue<int> queue(/*capacity=*/3);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_EQ(queue.TryPop(), 1);
  EXPECT_EQ(queue.TryPop(), 2);
  EXPECT_EQ(queue.TryPop(), std::nullopt);
}

TEST(BoundedQueueTest, RefusesWhatDoesNotFitAndLeavesItAlone) {
  BoundedQueue<std::unique_ptr<int>> queue(/*capacity=*/1);
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(1)));
  auto refused = std::make_unique<int>(2);
  EXPECT_FALSE(queue.TryPush(std::move(refused)));
  ASSERT_NE(refused, nullptr);
  EXPECT_EQ(*refused, 2);
}

TEST(BoundedQueueTest, ClosedQueueGivesWhatItHasAndTakesNothing) {
  BoundedQueue<int> queue(/*capacity=*/2);
  EXPECT_TRUE(queue.TryPush(1));
  queue.Close();
  EXPECT_FALSE(queue.TryPush(2));
  EXPECT_EQ(queue.PopFor(absl::InfiniteDuration()), 1);
  EXPECT_EQ(queue.PopFor(absl::InfiniteDuration()), std::nullopt);
}

TEST(BoundedQueueTest, PopWakesWhenAnItemComes) {
  BoundedQueue<int> queue(/*capacity=*/1);
  std::jthread producer([&queue] { EXPECT_TRUE(queue.TryPush(7)); });
  EXPECT_EQ(queue.PopFor(absl::InfiniteDuration()), 7);
}

TEST(BoundedQueueTest, PopReturnsWhenItsTimeIsOver) {
  BoundedQueue<int> queue(/*capacity=*/1);
  EXPECT_EQ(queue.PopFor(absl::Milliseconds(1)), std::nullopt);
}

TEST(BoundedQueueTest, DrainTakesAll) {
  BoundedQueue<int> queue(/*capacity=*/3);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_EQ(queue.Drain(), (std::vector<int>{1, 2}));
  EXPECT_EQ(queue.size(), 0u);
}

TEST(BoundedQueueTest, ManyProducersLoseNothing) {
  BoundedQueue<int> queue(/*capacity=*/4000);
  {
    std::vector<std::jthread> producers;
    for (int thread = 0; thread < 4; ++thread) {
      producers.emplace_back([&queue] {
        for (int i = 0; i < 1000; ++i) EXPECT_TRUE(queue.TryPush(1));
      });
    }
  }
  int sum = 0;
  while (const std::optional<int> item = queue.TryPop()) sum += *item;
  EXPECT_EQ(sum, 4000);
}

}  // namespace
}  // namespace caravan
