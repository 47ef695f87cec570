// The only list of error reasons, and the makers of statuses that carry them.
//
// A reason says why, for machines; the absl code says what the caller should
// do (retry the call, shed, correct a field). Both, and whether a retry can
// help, come from one table, so a maker takes a reason and a sentence:
//
//   return MakeError(Reason::kPromptTooLong,
//                    "prompt must be at most 1024 tokens; got 1100",
//                    {{"limit", "1024"}, {"value", "1100"}});
//
// Reasons, metadata, fields and retry times ride in payloads of the status and
// cross process borders (common/status/grpc_status.h).
//
// Thread-safe: pure functions.
#ifndef CARAVAN_COMMON_STATUS_ERRORS_H_
#define CARAVAN_COMMON_STATUS_ERRORS_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace caravan {

// Values and names equal those of caravan.v1.ErrorReason, where each is
// explained.
enum class Reason {
  kUnspecified = 0,
  kInvalidField = 1,
  kUnsupportedParameter = 2,
  kUnknownParameter = 3,
  kModelNotFound = 4,
  kPromptTooLong = 5,
  kInvalidUtf8 = 6,
  kBodyTooLarge = 7,
  kMalformedJson = 8,
  kUnauthenticated = 9,
  kForbidden = 10,
  kIdempotencyConflict = 11,
  kQueueFull = 12,
  kKvExhausted = 13,
  kRateLimited = 14,
  kNoReplica = 15,
  kNoReplicaOfClass = 16,
  kWorkerLost = 17,
  kDraining = 18,
  kStaleEpoch = 19,
  kUnsupportedFeature = 20,
  kProtocolMismatch = 21,
  kTokenizerUnavailable = 22,
  kRouterUnavailable = 23,
  kDeadlineExceeded = 24,
  kCancelled = 25,
  kSlowReader = 26,
  kNumericFault = 27,
  kSuspectRequest = 28,
  kTemplateError = 29,
  kModelFileInvalid = 30,
  kMemoryPlan = 31,
  kIdentityMismatch = 32,
  kNotFound = 33,
  kInternal = 34,
};

inline constexpr int kReasonCount = 35;

using ErrorMetadata = std::map<std::string, std::string>;

// One wrong field of a request.
struct FieldViolation {
  std::string field;        // path, such as "messages[0].content"
  std::string description;  // what, limit, given value
};

// "PROMPT_TOO_LONG" and so on, as in ErrorInfo.reason.
std::string_view ReasonName(Reason reason);

// The reason of that name, or nothing.
std::optional<Reason> ReasonFromName(std::string_view name);

// What the caller should do, and whether trying again can help.
absl::StatusCode CodeOfReason(Reason reason);
bool IsRetryable(Reason reason);

// A status with the reason's code.
absl::Status MakeError(Reason reason, std::string_view message,
                       const ErrorMetadata& metadata = {});

// kInvalidField for one field: "FIELD must be LIMIT; got VALUE".
absl::Status FieldError(std::string_view field, std::string_view limit,
                        std::string_view value);

// kUnsupportedParameter for one field, with what can be done instead.
absl::Status UnsupportedError(std::string_view field,
                              std::string_view advice = "leave it out");

// The same status naming the wrong fields.
absl::Status WithFieldViolations(absl::Status status,
                                 const std::vector<FieldViolation>& violations);

// The same status with a retry time, rounded up to whole milliseconds.
absl::Status WithRetryAfter(absl::Status status, absl::Duration delay);

// What a status carries. Statuses made elsewhere have a reason derived from
// their code (kInternal, kCancelled, kDeadlineExceeded, ...).
Reason ReasonOf(const absl::Status& status);
bool IsRetryable(const absl::Status& status);
ErrorMetadata MetadataOf(const absl::Status& status);
std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status);
std::optional<absl::Duration> RetryAfterOf(const absl::Status& status);

// The same status (payloads kept) with "CONTEXT: " before its message.
absl::Status Annotate(const absl::Status& status, std::string_view context);

}  // namespace caravan

#endif  // CARAVAN_COMMON_STATUS_ERRORS_H_
