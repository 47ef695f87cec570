// One input of Prepare: a text, a conversation or a gap to fill, to ids.
#ifndef CARAVAN_SERVICES_TOKENIZER_PREPARE_H_
#define CARAVAN_SERVICES_TOKENIZER_PREPARE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caravan/v1/tokenizer.pb.h"
#include "services/tokenizer/model_set.h"

namespace caravan::tokenizer {

// Texts longer than this are refused before they are encoded: no context is so
// long, and merging needs some 40 bytes for each of these.
inline constexpr size_t kMaxTextBytes = 16u << 20;

// Where and when a template runs (strftime_now).
struct RenderTime {
  absl::Time now;
  absl::TimeZone zone;
};

struct PreparedInput {
  v1::PreparedPrompt prompt;
  int64_t text_bytes = 0;   // that were encoded
  std::string template_id;  // empty without a template
};

// `field` is the path of the input, for messages. Errors: kInvalidField,
// kInvalidUtf8, kTemplateError, kUnsupportedParameter.
absl::StatusOr<PreparedInput> PrepareInput(const LoadedModel& model,
                                           const v1::PrepareInput& input,
                                           const std::string& field,
                                           const RenderTime& time);

// Error: kInvalidField for more than kMaxTextBytes.
absl::Status CheckTextSize(size_t bytes, const std::string& field);

}  // namespace caravan::tokenizer

#endif  // CARAVAN_SERVICES_TOKENIZER_PREPARE_H_
