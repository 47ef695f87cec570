#include "services/router/circuit_breaker.h"

#include <gtest/gtest.h>

namespace caravan::router {
namespace {

class CircuitBreakerTest : public ::testing::Test {
 protected:
  // `count` failures, a second apart.
  void Fail(int count) {
    for (int i = 0; i < count; ++i) {
      now_ += absl::Seconds(1);
      breaker_.RecordFailure(now_);
    }
  }

  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
  CircuitBreaker breaker_;
};

TEST_F(CircuitBreakerTest, OpensAfterFiveFailuresAndClosesByItself) {
  Fail(4);
  EXPECT_FALSE(breaker_.IsOpen(now_));
  Fail(1);
  EXPECT_TRUE(breaker_.IsOpen(now_));
  EXPECT_FALSE(breaker_.IsOpen(now_ + absl::Seconds(1)));
}

TEST_F(CircuitBreakerTest, ABurstIsOneFailure) {
  for (int i = 0; i < 256; ++i) {
    breaker_.RecordFailure(now_ + absl::Microseconds(100) * i);
  }
  EXPECT_FALSE(breaker_.IsOpen(now_ + absl::Milliseconds(30)));
}

TEST_F(CircuitBreakerTest, OldFailuresDoNotCount) {
  Fail(4);
  now_ += absl::Seconds(10);
  Fail(4);
  EXPECT_FALSE(breaker_.IsOpen(now_));
}

TEST_F(CircuitBreakerTest, OneFailureOnProbationOpensItTwiceAsLong) {
  Fail(5);
  now_ += absl::Seconds(1);
  EXPECT_FALSE(breaker_.IsOpen(now_));
  breaker_.RecordFailure(now_);
  EXPECT_TRUE(breaker_.IsOpen(now_ + absl::Milliseconds(1999)));
  EXPECT_FALSE(breaker_.IsOpen(now_ + absl::Seconds(2)));
}

TEST_F(CircuitBreakerTest, OpenTimeHasABound) {
  Fail(5);
  for (int i = 0; i < 10; ++i) {
    while (breaker_.IsOpen(now_)) now_ += absl::Milliseconds(100);
    breaker_.RecordFailure(now_);
  }
  EXPECT_TRUE(breaker_.IsOpen(now_ + absl::Seconds(29)));
  EXPECT_FALSE(breaker_.IsOpen(now_ + absl::Seconds(30)));
}

TEST_F(CircuitBreakerTest, AQuietWindowEndsProbation) {
  Fail(5);
  now_ += absl::Seconds(11);
  EXPECT_TRUE(breaker_.IsForgotten(now_));
  breaker_.RecordFailure(now_);
  EXPECT_FALSE(breaker_.IsOpen(now_));
}

}  // namespace
}  // namespace caravan::router
