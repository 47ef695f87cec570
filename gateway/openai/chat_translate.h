// POST /v1/chat/completions into the internal request.
#ifndef CARAVAN_GATEWAY_OPENAI_CHAT_TRANSLATE_H_
#define CARAVAN_GATEWAY_OPENAI_CHAT_TRANSLATE_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "gateway/openai/json_reader.h"
#include "gateway/request.h"

namespace caravan::gateway::openai {

// Errors as for TranslateCompletion.
absl::StatusOr<GenerationRequest> TranslateChat(std::string_view body);

// The field `messages`; content is a string or an array of text parts.
absl::StatusOr<Conversation> ReadMessages(ObjectReader& reader);

// Messages of one conversation.
inline constexpr int kMaxMessages = 4096;

}  // namespace caravan::gateway::openai

#endif  // CARAVAN_GATEWAY_OPENAI_CHAT_TRANSLATE_H_
