// The only place that builds OpenAI's error objects.
#ifndef CARAVAN_GATEWAY_OPENAI_ERROR_BODY_H_
#define CARAVAN_GATEWAY_OPENAI_ERROR_BODY_H_

#include <string>

#include "absl/status/status.h"
#include "common/status/errors.h"

namespace caravan::gateway::openai {

// {"error":{"message","type","param","code","retryable"}}. `code` is the
// reason's name, `param` the wrong field.
std::string ErrorBody(const absl::Status& status);

// The HTTP status of a reason. (431 and 408 are HTTP's own: http/server.)
int HttpStatus(Reason reason);

// Seconds for the header Retry-After, at least 1; 0: no such header.
int RetryAfterSeconds(const absl::Status& status);

}  // namespace caravan::gateway::openai

#endif  // CARAVAN_GATEWAY_OPENAI_ERROR_BODY_H_
