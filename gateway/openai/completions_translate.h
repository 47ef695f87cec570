// POST /v1/completions into the internal request.
#ifndef CARAVAN_GATEWAY_OPENAI_COMPLETIONS_TRANSLATE_H_
#define CARAVAN_GATEWAY_OPENAI_COMPLETIONS_TRANSLATE_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "gateway/request.h"

namespace caravan::gateway::openai {

// Errors name the field, its limit and the value: kMalformedJson,
// kInvalidUtf8, kInvalidField, kUnsupportedParameter, kUnknownParameter.
absl::StatusOr<GenerationRequest> TranslateCompletion(std::string_view body);

}  // namespace caravan::gateway::openai

#endif  // CARAVAN_GATEWAY_OPENAI_COMPLETIONS_TRANSLATE_H_
