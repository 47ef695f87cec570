// The fields that chat and completions share.
#ifndef CARAVAN_GATEWAY_OPENAI_GENERATION_FIELDS_H_
#define CARAVAN_GATEWAY_OPENAI_GENERATION_FIELDS_H_

#include "absl/status/status.h"
#include "gateway/openai/json_reader.h"
#include "gateway/request.h"

namespace caravan::gateway::openai {

// Reads model, sampling, stop, n, seed, streaming, priority and Caravan's own
// fields. Errors name the field, its limit and the value.
absl::Status ReadSharedFields(ObjectReader& reader, GenerationRequest& request);

// Accepts what has no effect on tokens (user, metadata, store, ...), and
// refuses by name what is not supported, unless it is neutral.
absl::Status ReadNeutralFields(ObjectReader& reader);

}  // namespace caravan::gateway::openai

#endif  // CARAVAN_GATEWAY_OPENAI_GENERATION_FIELDS_H_
