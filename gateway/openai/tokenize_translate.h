// POST /tokenize and /detokenize, and GET /v1/models.
#ifndef CARAVAN_GATEWAY_OPENAI_TOKENIZE_TRANSLATE_H_
#define CARAVAN_GATEWAY_OPENAI_TOKENIZE_TRANSLATE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "gateway/request.h"

namespace caravan::gateway::openai {

// {model, prompt or messages (with tools), add_special_tokens}
struct TokenizeRequest {
  std::string model;
  PromptInput prompt;  // text or a conversation
  bool add_special_tokens = true;
};

// {model, tokens}
struct DetokenizeRequest {
  std::string model;
  std::vector<TokenId> tokens;
  bool skip_special_tokens = false;
};

// An entry of /v1/models.
struct ModelEntry {
  std::string name;
  int64_t created_unix_s = 0;
  int32_t context_length = 0;
};

// Errors as for TranslateCompletion.
absl::StatusOr<TokenizeRequest> TranslateTokenize(std::string_view body);
absl::StatusOr<DetokenizeRequest> TranslateDetokenize(std::string_view body);

std::string TokenizeBody(std::span<const TokenId> tokens);
std::string DetokenizeBody(std::string_view text);
std::string ModelBody(const ModelEntry& model);
std::string ModelListBody(std::span<const ModelEntry> models);

}  // namespace caravan::gateway::openai

#endif  // CARAVAN_GATEWAY_OPENAI_TOKENIZE_TRANSLATE_H_
