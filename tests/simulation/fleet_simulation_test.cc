#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tests/simulation/fleet_trace.h"

namespace caravan::simulation {
namespace {

TEST(FleetTraceTest, TheSixTracesAreWhatTheyWereBeforePoliciesWereTuned) {
  const std::vector<uint64_t> digests = {
      0xdb0cb1adef9eaca6, 0x76404a72961bccf1, 0x8dc6d959b5705c5b,
      0xc068e9e04b3d8cae, 0xe7c645cbaf2fbe50, 0xe6b2ceef685de93d};
  for (size_t i = 0; i < FixedTraces().size(); ++i) {
    EXPECT_EQ(DigestOf(MakeTrace(FixedTraces()[i], 2000)), digests[i])
        << FixedTraces()[i].name;
  }
}

}  // namespace
}  // namespace caravan::simulation
