#include "common/status/grpc_status.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/time/time.h"
#include "common/status/errors.h"
#include "common/strings.h"
#include "google/protobuf/any.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace caravan {
namespace {

constexpr std::string_view kDomain = "caravan";
constexpr std::string_view kRetryKey = "retry_after_ms";

// Details travel in HTTP/2 trailers, of which gRPC accepts 8 KiB by default:
// what a client sent and an error quotes must not break the answer.
constexpr size_t kMaxMessageBytes = 1024;  // up to three times that on wire
constexpr size_t kMaxValueBytes = 512;
constexpr size_t kMaxEntries = 8;
constexpr size_t kMaxDetailBytes = 3072;  // a third more on the wire
constexpr size_t kMaxReceivedDetailBytes = 64 << 10;

// Length of the well-formed UTF-8 character at the start of `text`; 0 if
// there is none.
size_t Utf8CharacterBytes(std::string_view text) {
  const auto at = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = at(0);
  if (first < 0x80) return 1;
  const size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  const bool overlong =
      (first == 0xE0 && at(1) < 0xA0) || (first == 0xF0 && at(1) < 0x90);
  const bool outside =
      (first == 0xED && at(1) > 0x9F) || (first == 0xF4 && at(1) > 0x8F);
  return overlong || outside ? 0 : size;
}

// What a proto3 string may hold: bytes that are not UTF-8 become '?', and
// the rest is cut at a character border.
std::string Clean(std::string_view text, size_t max_bytes) {
  std::string out;
  while (!text.empty()) {
    const size_t size = Utf8CharacterBytes(text);
    const size_t taken = std::max<size_t>(size, 1);
    if (out.size() + taken > max_bytes) break;
    out.append(size == 0 ? "?" : text.substr(0, size));
    text.remove_prefix(taken);
  }
  return out;
}

google::rpc::ErrorInfo MakeErrorInfo(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(ReasonName(ReasonOf(status))));
  info.set_domain(std::string(kDomain));
  for (const auto& [key, value] : MetadataOf(status)) {
    if (info.metadata().size() >= kMaxEntries) break;
    (*info.mutable_metadata())[Clean(key, kMaxValueBytes)] =
        Clean(value, kMaxValueBytes);
  }
  return info;
}

google::rpc::BadRequest MakeBadRequest(
    const std::vector<FieldViolation>& violations) {
  google::rpc::BadRequest bad_request;
  for (const FieldViolation& violation : violations) {
    if (bad_request.field_violations_size() >= int{kMaxEntries}) break;
    auto* const added = bad_request.add_field_violations();
    added->set_field(Clean(violation.field, kMaxValueBytes));
    added->set_description(Clean(violation.description, kMaxValueBytes));
  }
  return bad_request;
}

google::rpc::RetryInfo MakeRetryInfo(absl::Duration delay) {
  google::rpc::RetryInfo info;
  const int64_t ms = absl::ToInt64Milliseconds(delay);
  info.mutable_retry_delay()->set_seconds(ms / 1000);
  info.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>(ms % 1000 * 1'000'000));
  return info;
}

absl::Duration DelayOf(const google::rpc::RetryInfo& info) {
  return std::max(absl::Seconds(info.retry_delay().seconds()) +
                      absl::Nanoseconds(info.retry_delay().nanos()),
                  absl::ZeroDuration());
}

// `code` and `message` with what `source` carries.
absl::Status WithPayloadsOf(const absl::Status& source, absl::StatusCode code,
                            std::string_view message) {
  absl::Status status(code, ToAbsl(message));
  source.ForEachPayload(
      [&status](absl::string_view url, const absl::Cord& payload) {
        status.SetPayload(url, payload);
      });
  return status;
}

absl::Status WithErrorInfo(const absl::Status& status,
                           const google::rpc::ErrorInfo& info) {
  const std::optional<Reason> reason = ReasonFromName(info.reason());
  if (info.domain() != kDomain || !reason) return status;
  const ErrorMetadata metadata(info.metadata().begin(), info.metadata().end());
  return WithPayloadsOf(MakeError(*reason, "", metadata), status.code(),
                        ToStd(status.message()));
}

std::vector<FieldViolation> ViolationsOf(
    const google::rpc::BadRequest& bad_request) {
  std::vector<FieldViolation> violations;
  for (const auto& violation : bad_request.field_violations()) {
    violations.push_back({violation.field(), violation.description()});
  }
  return violations;
}

absl::Status WithDetails(absl::Status status,
                         const google::rpc::Status& details) {
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad_request;
  google::rpc::RetryInfo retry;
  for (const google::protobuf::Any& any : details.details()) {
    if (any.UnpackTo(&info)) status = WithErrorInfo(status, info);
  }
  for (const google::protobuf::Any& any : details.details()) {
    if (any.UnpackTo(&bad_request)) {
      status =
          WithFieldViolations(std::move(status), ViolationsOf(bad_request));
    } else if (any.UnpackTo(&retry)) {
      status = WithRetryAfter(std::move(status), DelayOf(retry));
    }
  }
  return status;
}

google::rpc::Status MakeDetails(const absl::Status& status,
                                const std::string& message) {
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);
  details.add_details()->PackFrom(MakeErrorInfo(status));
  if (const auto violations = FieldViolationsOf(status); !violations.empty()) {
    details.add_details()->PackFrom(MakeBadRequest(violations));
  }
  if (const auto delay = RetryAfterOf(status)) {
    details.add_details()->PackFrom(MakeRetryInfo(*delay));
  }
  return details;
}

// Reason and retry time alone.
absl::Status EssenceOf(const absl::Status& status) {
  const absl::Status essence =
      WithPayloadsOf(MakeError(ReasonOf(status), ""), status.code(), "");
  const auto delay = RetryAfterOf(status);
  return delay ? WithRetryAfter(essence, *delay) : essence;
}

// The reason of an error whose number this build may not know.
Reason ReasonOfProto(const v1::Error& error) {
  const int value = error.reason();
  if (value > 0 && value < kReasonCount) return static_cast<Reason>(value);
  return error.retryable() ? Reason::kWorkerLost : Reason::kInternal;
}

// A violation's description is the message without the field before it.
std::string DescriptionOf(std::string_view field, std::string_view message) {
  if (message.starts_with(field) && message.size() > field.size() &&
      message[field.size()] == ' ') {
    message.remove_prefix(field.size() + 1);
  }
  return std::string(message);
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message = Clean(ToStd(status.message()), kMaxMessageBytes);
  google::rpc::Status details = MakeDetails(status, message);
  if (details.ByteSizeLong() > kMaxDetailBytes) {
    details = MakeDetails(EssenceOf(status), "");
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      details.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status converted(static_cast<absl::StatusCode>(status.error_code()),
                         status.error_message());
  const std::string& packed = status.error_details();
  google::rpc::Status details;
  if (packed.empty() || packed.size() > kMaxReceivedDetailBytes ||
      !details.ParseFromString(packed)) {
    return converted;
  }
  return WithDetails(std::move(converted), details);
}

v1::Error ToProtoError(const absl::Status& status) {
  v1::Error error;
  if (status.ok()) return error;
  error.set_reason(static_cast<v1::ErrorReason>(ReasonOf(status)));
  error.set_retryable(IsRetryable(status));
  error.set_message(Clean(ToStd(status.message()), kMaxMessageBytes));
  for (const auto& [key, value] : MetadataOf(status)) {
    (*error.mutable_metadata())[Clean(key, kMaxValueBytes)] =
        Clean(value, kMaxValueBytes);
  }
  if (const auto delay = RetryAfterOf(status)) {
    (*error.mutable_metadata())[std::string(kRetryKey)] =
        StrCat(absl::ToInt64Milliseconds(*delay));
  }
  return error;
}

absl::Status FromProtoError(const v1::Error& error) {
  ErrorMetadata metadata(error.metadata().begin(), error.metadata().end());
  std::optional<absl::Duration> delay;
  if (const auto it = metadata.find(std::string(kRetryKey));
      it != metadata.end()) {
    int64_t ms = 0;
    if (absl::SimpleAtoi(it->second, &ms)) delay = absl::Milliseconds(ms);
    metadata.erase(it);
  }
  absl::Status status =
      MakeError(ReasonOfProto(error), error.message(), metadata);
  if (const auto field = metadata.find("field"); field != metadata.end()) {
    status = WithFieldViolations(
        std::move(status),
        {{field->second, DescriptionOf(field->second, error.message())}});
  }
  return delay ? WithRetryAfter(std::move(status), *delay) : status;
}

}  // namespace caravan
