#include "gateway/openai/error_body.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "common/strings.h"
#include "gateway/openai/json_writer.h"

namespace caravan::gateway::openai {
namespace {

std::string_view ErrorType(int http_status) {
  if (http_status == 401) return "authentication_error";
  if (http_status == 403) return "permission_error";
  if (http_status == 429) return "rate_limit_error";
  return http_status < 500 ? "invalid_request_error" : "server_error";
}

// The wrong field, where one is known.
std::string ParamOf(const absl::Status& status) {
  const std::vector<FieldViolation> fields = FieldViolationsOf(status);
  if (!fields.empty()) return fields.front().field;
  const ErrorMetadata metadata = MetadataOf(status);
  const auto it = metadata.find("field");
  return it == metadata.end() ? "" : it->second;
}

}  // namespace

int HttpStatus(Reason reason) {
  switch (reason) {
    case Reason::kBodyTooLarge:
      return 413;
    case Reason::kUnsupportedFeature:
      return 501;
    case Reason::kCancelled:
      return 499;
    default:
      break;
  }
  switch (CodeOfReason(reason)) {
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

std::string ErrorBody(const absl::Status& status) {
  const Reason reason = ReasonOf(status);
  const std::string param = ParamOf(status);
  JsonWriter json;
  json.BeginObject().Key("error").BeginObject();
  json.Key("message").String(ToStd(status.message()));
  json.Key("type").String(ErrorType(HttpStatus(reason)));
  json.Key("param");
  param.empty() ? json.Null() : json.String(param);
  json.Key("code").String(ReasonName(reason));
  json.Key("retryable").Bool(IsRetryable(status));
  json.EndObject().EndObject();
  return json.Take();
}

int RetryAfterSeconds(const absl::Status& status) {
  const int http_status = HttpStatus(ReasonOf(status));
  if (http_status != 429 && http_status != 503) return 0;
  const auto delay = RetryAfterOf(status).value_or(absl::Seconds(1));
  return std::max<int>(1, static_cast<int>(absl::ToInt64Seconds(
                              absl::Ceil(delay, absl::Seconds(1)))));
}

}  // namespace caravan::gateway::openai
