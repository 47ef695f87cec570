#include "common/clock.h"

#include <gtest/gtest.h>

#include "tests/support/manual_clock.h"

namespace caravan {
namespace {

TEST(SystemClockTest, NeverGoesBackwards) {
  const SystemClock& clock = SystemClock::Get();
  absl::Time last = clock.Now();
  for (int i = 0; i < 1000; ++i) {
    const absl::Time now = clock.Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(ManualClockTest, MovesOnlyWhenTold) {
  testing::ManualClock clock;
  const absl::Time start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(absl::Milliseconds(500));
  EXPECT_EQ(clock.Now() - start, absl::Milliseconds(500));
}

}  // namespace
}  // namespace caravan
