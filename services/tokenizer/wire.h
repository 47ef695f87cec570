// Conversations of the protocol to what templates see.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_SERVICES_TOKENIZER_WIRE_H_
#define CARAVAN_SERVICES_TOKENIZER_WIRE_H_

#include <string>

#include "absl/status/statusor.h"
#include "caravan/v1/tokenizer.pb.h"
#include "services/tokenizer/chat_template.h"

namespace caravan::tokenizer {

// A message becomes a dict with role, content and what else it has. Several
// text parts become one text, with a newline between; no parts become none.
// `field` is the path of the conversation, for messages. Errors: kInvalidField
// (no messages, JSON that is not valid), kUnsupportedParameter (images).
absl::StatusOr<Conversation> FromProto(const v1::Conversation& conversation,
                                       const std::string& field);

}  // namespace caravan::tokenizer

#endif  // CARAVAN_SERVICES_TOKENIZER_WIRE_H_
