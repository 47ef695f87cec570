// The parts that several of OpenAI's response objects have.
#ifndef CARAVAN_GATEWAY_OPENAI_RESPONSE_PARTS_H_
#define CARAVAN_GATEWAY_OPENAI_RESPONSE_PARTS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "common/text/vocabulary.h"
#include "gateway/openai/json_writer.h"
#include "gateway/stream/events.h"

namespace caravan::gateway::openai {

// What is the same in all objects of one response.
struct ResponseHead {
  std::string id;  // "cmpl-..." or "chatcmpl-..."
  int64_t created_unix_s = 0;
};

// "stop", "length" or "tool_calls".
std::string_view FinishName(FinishReason reason);

// A token as text; bytes that are no UTF-8 are written "\xE2\x9C" with
// `prefix` before them.
std::string TokenText(const text::Vocabulary& vocabulary, TokenId id,
                      std::string_view prefix);

// {"prompt_tokens",...}
void WriteUsage(const Finished& finished, JsonWriter& json);

void WriteTokenIds(std::span<const TokenId> ids, JsonWriter& json);
void WriteTokenIds(std::span<const TokenPiece> tokens, JsonWriter& json);

// The fields "finish_reason" and, where one was met, "stop_reason".
void WriteFinish(const std::optional<FinishReason>& finish,
                 const std::optional<std::string>& stop_text,
                 const std::optional<TokenId>& stop_token_id, JsonWriter& json);

// The field "tool_calls". Chunks of a stream number the calls.
void WriteToolCalls(std::span<const ToolCall> calls, bool with_index,
                    JsonWriter& json);

// The fields "receipt" and, where there are any, "inexact_resumes".
void WriteReceipt(const Finished& finished, JsonWriter& json);

// The value of header x-caravan-receipt.
std::string ReceiptHeader(const Finished& finished);

// The object of chat's logprobs.
void WriteChatLogprobs(const text::Vocabulary& vocabulary,
                       std::span<const TokenPiece> tokens, JsonWriter& json);

// The four parallel arrays of completions' logprobs.
class CompletionLogprobs {
 public:
  // `candidate_count` 0 leaves top_logprobs null.
  CompletionLogprobs(const text::Vocabulary& vocabulary,
                     int32_t candidate_count);

  // The echoed prompt: its first token has no logprob.
  void AddPrompt(const PromptReady& prompt);
  void Add(std::span<const TokenPiece> tokens);
  void Write(JsonWriter& json);

 private:
  void AddToken(const TokenPiece& token, int32_t text_offset);

  const text::Vocabulary& vocabulary_;
  const int32_t candidate_count_;
  JsonWriter tokens_;
  JsonWriter logprobs_;
  JsonWriter candidates_;
  JsonWriter offsets_;
};

}  // namespace caravan::gateway::openai

#endif  // CARAVAN_GATEWAY_OPENAI_RESPONSE_PARTS_H_
