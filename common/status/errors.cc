#include "common/status/errors.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/types/optional.h"
#include "common/strings.h"

namespace caravan {
namespace {

constexpr std::string_view kReasonUrl = "caravan/reason";
constexpr std::string_view kMetadataUrl = "caravan/metadata";
constexpr std::string_view kFieldUrl = "caravan/field";
constexpr std::string_view kRetryUrl = "caravan/retry_after_ms";

struct ReasonRow {
  std::string_view name;
  absl::StatusCode code;
  bool retryable;
};

using C = absl::StatusCode;

// Indexed by the reason's value.
constexpr std::array<ReasonRow, kReasonCount> kReasons = {{
    {"UNSPECIFIED", C::kUnknown, false},
    {"INVALID_FIELD", C::kInvalidArgument, false},
    {"UNSUPPORTED_PARAMETER", C::kInvalidArgument, false},
    {"UNKNOWN_PARAMETER", C::kInvalidArgument, false},
    {"MODEL_NOT_FOUND", C::kNotFound, false},
    {"PROMPT_TOO_LONG", C::kInvalidArgument, false},
    {"INVALID_UTF8", C::kInvalidArgument, false},
    {"BODY_TOO_LARGE", C::kInvalidArgument, false},
    {"MALFORMED_JSON", C::kInvalidArgument, false},
    {"UNAUTHENTICATED", C::kUnauthenticated, false},
    {"FORBIDDEN", C::kPermissionDenied, false},
    {"IDEMPOTENCY_CONFLICT", C::kAlreadyExists, false},
    {"QUEUE_FULL", C::kResourceExhausted, true},
    {"KV_EXHAUSTED", C::kResourceExhausted, true},
    {"RATE_LIMITED", C::kResourceExhausted, true},
    {"NO_REPLICA", C::kUnavailable, true},
    {"NO_REPLICA_OF_CLASS", C::kUnavailable, true},
    {"WORKER_LOST", C::kUnavailable, true},
    {"DRAINING", C::kUnavailable, true},
    {"STALE_EPOCH", C::kUnavailable, true},
    {"UNSUPPORTED_FEATURE", C::kUnimplemented, false},
    {"PROTOCOL_MISMATCH", C::kFailedPrecondition, false},
    {"TOKENIZER_UNAVAILABLE", C::kUnavailable, true},
    {"ROUTER_UNAVAILABLE", C::kUnavailable, true},
    {"DEADLINE_EXCEEDED", C::kDeadlineExceeded, false},
    {"CANCELLED", C::kCancelled, false},
    {"SLOW_READER", C::kAborted, false},
    {"NUMERIC_FAULT", C::kInternal, true},
    {"SUSPECT_REQUEST", C::kInternal, false},
    {"TEMPLATE_ERROR", C::kInvalidArgument, false},
    {"MODEL_FILE_INVALID", C::kDataLoss, false},
    {"MEMORY_PLAN", C::kFailedPrecondition, false},
    {"IDENTITY_MISMATCH", C::kFailedPrecondition, false},
    {"NOT_FOUND", C::kNotFound, false},
    {"INTERNAL", C::kInternal, false},
}};

const ReasonRow& Row(Reason reason) {
  const auto index = static_cast<size_t>(reason);
  return kReasons[index < kReasons.size()
                      ? index
                      : static_cast<size_t>(Reason::kInternal)];
}

// The reason of a status that no maker of ours made.
Reason ReasonOfCode(absl::StatusCode code) {
  switch (code) {
    case C::kCancelled:
      return Reason::kCancelled;
    case C::kDeadlineExceeded:
      return Reason::kDeadlineExceeded;
    case C::kInvalidArgument:
    case C::kOutOfRange:
      return Reason::kInvalidField;
    case C::kNotFound:
      return Reason::kNotFound;
    case C::kUnauthenticated:
      return Reason::kUnauthenticated;
    case C::kPermissionDenied:
      return Reason::kForbidden;
    case C::kResourceExhausted:
      return Reason::kQueueFull;
    case C::kUnavailable:
      return Reason::kWorkerLost;
    case C::kUnimplemented:
      return Reason::kUnsupportedFeature;
    default:
      return Reason::kInternal;
  }
}

// Payloads hold lists of strings as (length, bytes) pairs.
void AppendString(std::string_view text, std::string& out) {
  StrAppend(&out, text.size(), ":", text);
}

std::vector<std::string> SplitStrings(std::string_view packed) {
  std::vector<std::string> strings;
  while (!packed.empty()) {
    const size_t colon = packed.find(':');
    uint64_t size = 0;
    if (colon == std::string_view::npos ||
        !absl::SimpleAtoi(ToAbsl(packed.substr(0, colon)), &size) ||
        size > packed.size() - colon - 1) {
      break;
    }
    strings.emplace_back(packed.substr(colon + 1, size));
    packed.remove_prefix(colon + 1 + size);
  }
  return strings;
}

std::vector<std::string> PayloadStrings(const absl::Status& status,
                                        std::string_view url) {
  const absl::optional<absl::Cord> payload = status.GetPayload(ToAbsl(url));
  if (!payload) return {};
  return SplitStrings(std::string(*payload));
}

}  // namespace

std::string_view ReasonName(Reason reason) { return Row(reason).name; }

std::optional<Reason> ReasonFromName(std::string_view name) {
  for (size_t i = 0; i < kReasons.size(); ++i) {
    if (kReasons[i].name == name) return static_cast<Reason>(i);
  }
  return std::nullopt;
}

absl::StatusCode CodeOfReason(Reason reason) { return Row(reason).code; }

bool IsRetryable(Reason reason) { return Row(reason).retryable; }

absl::Status MakeError(Reason reason, std::string_view message,
                       const ErrorMetadata& metadata) {
  absl::Status status(CodeOfReason(reason), ToAbsl(message));
  status.SetPayload(ToAbsl(kReasonUrl), absl::Cord(ToAbsl(ReasonName(reason))));
  if (!metadata.empty()) {
    std::string packed;
    for (const auto& [key, value] : metadata) {
      AppendString(key, packed);
      AppendString(value, packed);
    }
    status.SetPayload(ToAbsl(kMetadataUrl), absl::Cord(packed));
  }
  return status;
}

absl::Status FieldError(std::string_view field, std::string_view limit,
                        std::string_view value) {
  const std::string description = StrCat("must be ", limit, "; got ", value);
  absl::Status status =
      MakeError(Reason::kInvalidField, StrCat(field, " ", description),
                {{"field", std::string(field)},
                 {"limit", std::string(limit)},
                 {"value", std::string(value)}});
  return WithFieldViolations(std::move(status),
                             {{std::string(field), description}});
}

absl::Status UnsupportedError(std::string_view field, std::string_view advice) {
  absl::Status status = MakeError(Reason::kUnsupportedParameter,
                                  StrCat(field, " is not supported; ", advice),
                                  {{"field", std::string(field)}});
  return WithFieldViolations(
      std::move(status),
      {{std::string(field), StrCat("is not supported; ", advice)}});
}

absl::Status WithFieldViolations(
    absl::Status status, const std::vector<FieldViolation>& violations) {
  std::string packed;
  for (const FieldViolation& violation : violations) {
    AppendString(violation.field, packed);
    AppendString(violation.description, packed);
  }
  status.SetPayload(ToAbsl(kFieldUrl), absl::Cord(packed));
  return status;
}

absl::Status WithRetryAfter(absl::Status status, absl::Duration delay) {
  const int64_t ms =
      absl::ToInt64Milliseconds(absl::Ceil(delay, absl::Milliseconds(1)));
  status.SetPayload(ToAbsl(kRetryUrl), absl::Cord(StrCat(ms)));
  return status;
}

Reason ReasonOf(const absl::Status& status) {
  if (const absl::optional<absl::Cord> name =
          status.GetPayload(ToAbsl(kReasonUrl))) {
    return ReasonFromName(std::string(*name)).value_or(Reason::kInternal);
  }
  return ReasonOfCode(status.code());
}

bool IsRetryable(const absl::Status& status) {
  return IsRetryable(ReasonOf(status));
}

ErrorMetadata MetadataOf(const absl::Status& status) {
  const std::vector<std::string> strings = PayloadStrings(status, kMetadataUrl);
  ErrorMetadata metadata;
  for (size_t i = 0; i + 1 < strings.size(); i += 2) {
    metadata[strings[i]] = strings[i + 1];
  }
  return metadata;
}

std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status) {
  const std::vector<std::string> strings = PayloadStrings(status, kFieldUrl);
  std::vector<FieldViolation> violations;
  for (size_t i = 0; i + 1 < strings.size(); i += 2) {
    violations.push_back({strings[i], strings[i + 1]});
  }
  return violations;
}

std::optional<absl::Duration> RetryAfterOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload =
      status.GetPayload(ToAbsl(kRetryUrl));
  int64_t ms = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &ms)) {
    return std::nullopt;
  }
  return absl::Milliseconds(ms);
}

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(),
                         StrCat(context, ": ", ToStd(status.message())));
  status.ForEachPayload(
      [&annotated](absl::string_view url, const absl::Cord& payload) {
        annotated.SetPayload(url, payload);
      });
  return annotated;
}

}  // namespace caravan
