#include "common/status/errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/support/status_matchers.h"

namespace caravan {
namespace {

using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::Pair;

TEST(ErrorsTest, EveryReasonHasItsOwnNameAndAnErrorCode) {
  std::set<std::string_view> names;
  for (int i = 0; i < kReasonCount; ++i) {
    const auto reason = static_cast<Reason>(i);
    EXPECT_TRUE(names.insert(ReasonName(reason)).second) << i;
    EXPECT_EQ(ReasonFromName(ReasonName(reason)), reason);
    EXPECT_NE(CodeOfReason(reason), absl::StatusCode::kOk);
  }
  EXPECT_EQ(ReasonFromName("NO_SUCH_REASON"), std::nullopt);
}

TEST(ErrorsTest, AnErrorCarriesReasonCodeAndMetadata) {
  const absl::Status status = MakeError(
      Reason::kPromptTooLong, "prompt must be at most 8 tokens; got 9",
      {{"limit", "8"}, {"value", "9"}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), Reason::kPromptTooLong);
  EXPECT_FALSE(IsRetryable(status));
  EXPECT_THAT(MetadataOf(status),
              ElementsAre(Pair("limit", "8"), Pair("value", "9")));
}

TEST(ErrorsTest, MetadataMayHoldAnyBytes) {
  const std::string hostile = "12:" + std::string("\0\n:", 3);
  const absl::Status status =
      MakeError(Reason::kInternal, "m", {{hostile, hostile}});
  EXPECT_THAT(MetadataOf(status), ElementsAre(Pair(hostile, hostile)));
}

TEST(ErrorsTest, AFieldErrorNamesFieldLimitAndValue) {
  const absl::Status status = FieldError("top_p", "in (0, 1]", "-1");
  EXPECT_EQ(status.message(), "top_p must be in (0, 1]; got -1");
  EXPECT_THAT(FieldViolationsOf(status),
              ElementsAre(AllOf(Field(&FieldViolation::field, "top_p"),
                                Field(&FieldViolation::description,
                                      "must be in (0, 1]; got -1"))));
}

TEST(ErrorsTest, RetryTimesAreRoundedUp) {
  const absl::Status status = WithRetryAfter(
      MakeError(Reason::kQueueFull, "full"), absl::Microseconds(1500));
  EXPECT_EQ(RetryAfterOf(status), absl::Milliseconds(2));
  EXPECT_EQ(RetryAfterOf(absl::OkStatus()), std::nullopt);
}

TEST(ErrorsTest, StatusesMadeElsewhereGetAReasonFromTheirCode) {
  EXPECT_EQ(ReasonOf(absl::CancelledError("")), Reason::kCancelled);
  EXPECT_EQ(ReasonOf(absl::DeadlineExceededError("")),
            Reason::kDeadlineExceeded);
  EXPECT_EQ(ReasonOf(absl::UnknownError("")), Reason::kInternal);
}

TEST(ErrorsTest, AnnotateKeepsWhatTheStatusCarries) {
  const absl::Status status =
      Annotate(FieldError("n", "in [1, 16]", "17"), "request r1");
  EXPECT_EQ(status.message(), "request r1: n must be in [1, 16]; got 17");
  EXPECT_THAT(status, testing::HasReason(Reason::kInvalidField));
  EXPECT_EQ(FieldViolationsOf(status).size(), 1u);
  EXPECT_OK(Annotate(absl::OkStatus(), "request r1"));
}

}  // namespace
}  // namespace caravan
