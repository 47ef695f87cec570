#include "common/status/grpc_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "google/rpc/status.pb.h"
#include "tests/support/status_matchers.h"

namespace caravan {
namespace {

using ::testing::Field;
using ::testing::SizeIs;

absl::Status ThereAndBack(const absl::Status& status) {
  return FromGrpcStatus(ToGrpcStatus(status));
}

TEST(GrpcStatusTest, OkStaysOk) {
  EXPECT_OK(ThereAndBack(absl::OkStatus()));
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

TEST(GrpcStatusTest, EveryReasonCrossesTheBorder) {
  for (int i = 1; i < kReasonCount; ++i) {
    const auto reason = static_cast<Reason>(i);
    const absl::Status status = MakeError(reason, "why", {{"value", "3"}});
    EXPECT_EQ(ThereAndBack(status), status) << ReasonName(reason);
    EXPECT_EQ(FromProtoError(ToProtoError(status)), status)
        << ReasonName(reason);
  }
}

TEST(GrpcStatusTest, EveryCodeCrossesTheBorder) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "m");
    EXPECT_EQ(ThereAndBack(status).code(), status.code());
    EXPECT_EQ(ThereAndBack(status).message(), "m");
    EXPECT_EQ(ReasonOf(ThereAndBack(status)), ReasonOf(status));
  }
}

TEST(GrpcStatusTest, FieldsAndRetryTimesCrossTheBorder) {
  const absl::Status status = WithRetryAfter(
      FieldError("messages[0].content", "UTF-8", "0xff"), absl::Seconds(2));
  EXPECT_EQ(ThereAndBack(status), status);
  EXPECT_EQ(FromProtoError(ToProtoError(status)), status);
}

TEST(GrpcStatusTest, AReasonMayTravelUnderAnotherCode) {
  const absl::Status made = MakeError(Reason::kQueueFull, "full");
  absl::Status status(absl::StatusCode::kUnavailable, "full");
  made.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    status.SetPayload(url, payload);
  });
  EXPECT_EQ(ThereAndBack(status), status);
}

TEST(GrpcStatusTest, BytesThatAreNotUtf8BecomeQuestionMarks) {
  const absl::Status status =
      MakeError(Reason::kInvalidUtf8, "got \xff\xc3", {{"value", "\xed\xa0"}});
  const absl::Status received = ThereAndBack(status);
  EXPECT_EQ(received.message(), "got ??");
  EXPECT_EQ(MetadataOf(received)["value"], "??");
  EXPECT_EQ(
      ThereAndBack(absl::InternalError("\u00e9\u20ac\U0001f600")).message(),
      "\u00e9\u20ac\U0001f600");
}

TEST(GrpcStatusTest, QuotedInputCannotOverflowTheTrailers) {
  const std::string huge(100'000, 'x');
  absl::Status status = FieldError(huge, huge, huge);
  const grpc::Status sent = ToGrpcStatus(status);
  EXPECT_LE(sent.error_message().size(), 1024u);
  EXPECT_LE(sent.error_details().size(), 3072u);
  EXPECT_THAT(FromGrpcStatus(sent), testing::HasReason(Reason::kInvalidField));
}

TEST(GrpcStatusTest, DetailsThatAreNoStatusAreIgnored) {
  const grpc::Status torn(grpc::StatusCode::NOT_FOUND, "gone", "\xff\xff");
  EXPECT_EQ(FromGrpcStatus(torn), absl::NotFoundError("gone"));
}

TEST(GrpcStatusTest, AnUnknownReasonKeepsWhetherToRetry) {
  v1::Error error;
  error.set_reason(static_cast<v1::ErrorReason>(9999));
  error.set_message("from the future");
  EXPECT_FALSE(IsRetryable(FromProtoError(error)));
  error.set_retryable(true);
  EXPECT_TRUE(IsRetryable(FromProtoError(error)));
}

TEST(GrpcStatusTest, AnEmptyErrorIsStillAnError) {
  EXPECT_THAT(FromProtoError(v1::Error()),
              testing::HasReason(Reason::kInternal));
}

}  // namespace
}  // namespace caravan
