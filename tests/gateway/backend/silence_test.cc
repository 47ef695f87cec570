#include "gateway/backend/silence.h"

#include <gtest/gtest.h>

namespace caravan::gateway {
namespace {

constexpr absl::Duration kInterval = absl::Milliseconds(500);

TEST(SilenceTest, FourMissedIntervalsAreDeathAndAWordIsLife) {
  Silence silence;
  silence.Greeted(kInterval);
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(silence.Tick(kInterval)) << i;
  silence.Heard();
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(silence.Tick(kInterval)) << i;
  EXPECT_TRUE(silence.Tick(kInterval));
}

TEST(SilenceTest, APeerWithoutAPromiseMayBeSilent) {
  Silence silence;
  silence.Greeted(absl::ZeroDuration());
  EXPECT_FALSE(silence.Tick(absl::Hours(24)));
}

TEST(SilenceTest, AGreetingIsNotAwaitedForEver) {
  Silence silence;
  EXPECT_FALSE(silence.Tick(kGreetingTime / 2));
  EXPECT_TRUE(silence.Tick(kGreetingTime / 2));
}

}  // namespace
}  // namespace caravan::gateway
