// The properties of round_trip_test.cc a million times.
#include <gtest/gtest.h>

#include "tests/property/round_trip.h"

namespace caravan::text {
namespace {

constexpr int kCases = 1'000'000;

TEST(RoundTripLongTest, DecodingTheIdsOfAnyValidTextGivesTheText) {
  ExpectRoundTrips(kCases);
}

TEST(RoundTripLongTest, EverySplitGivesTheTextOfDecodingAtOnce) {
  ExpectEverySplitDecodesAlike(kCases);
}

}  // namespace
}  // namespace caravan::text
