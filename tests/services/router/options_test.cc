#include "services/router/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan::router {
namespace {

using testing::HasReason;
using ::testing::HasSubstr;

absl::StatusOr<std::optional<RouterOptions>> ParseOptional(
    std::vector<const char*> flags) {
  flags.insert(flags.begin(), "caravan-router");
  return ParseRouterOptions(static_cast<int>(flags.size()), flags.data());
}

absl::StatusOr<RouterOptions> Parse(std::vector<const char*> flags) {
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<RouterOptions> options,
                           ParseOptional(std::move(flags)));
  return options.value_or(RouterOptions());
}

TEST(RouterOptionsTest, DefaultsAreThoseOfTheDesign) {
  ASSERT_OK_AND_ASSIGN(const RouterOptions options, Parse({}));
  EXPECT_EQ(options.listen, "127.0.0.1");
  EXPECT_EQ(options.port, 8090);
  EXPECT_EQ(options.metrics_port, 9481);
  EXPECT_EQ(options.policy, "cost");
  EXPECT_EQ(options.grace_s, 30);
}

TEST(RouterOptionsTest, FlagsAreTaken) {
  ASSERT_OK_AND_ASSIGN(
      const RouterOptions options,
      Parse({"--port", "0", "--policy", "least_load", "--grace", "1.5"}));
  EXPECT_EQ(options.port, 0);
  EXPECT_EQ(options.policy, "least_load");
  EXPECT_EQ(options.grace_s, 1.5);
}

TEST(RouterOptionsTest, WhatIsOutOfRangeIsRefusedByFlag) {
  EXPECT_THAT(Parse({"--port", "65536"}),
              HasReason(Reason::kInvalidField,
                        HasSubstr("--port must be in [0, 65535]; got 65536")));
  EXPECT_THAT(Parse({"--grace", "nan"}),
              HasReason(Reason::kInvalidField, HasSubstr("--grace")));
  EXPECT_THAT(Parse({"--log-level", "loud"}),
              HasReason(Reason::kInvalidField, HasSubstr("got loud")));
  EXPECT_THAT(Parse({"--policy", "best"}),
              HasReason(Reason::kInvalidField, HasSubstr("--policy")));
  EXPECT_THAT(Parse({"--unknown"}),
              HasReason(Reason::kInvalidField, HasSubstr("--unknown")));
}

TEST(RouterOptionsTest, HelpIsPrintedAndNothingRuns) {
  ::testing::internal::CaptureStdout();
  ASSERT_OK_AND_ASSIGN(const auto options, ParseOptional({"--help"}));
  EXPECT_FALSE(options.has_value());
  EXPECT_THAT(::testing::internal::GetCapturedStdout(),
              HasSubstr("--max-indexed-blocks"));
}

}  // namespace
}  // namespace caravan::router
