#include "gateway/openai/response_parts.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "common/strings.h"
#include "common/text/utf8.h"

namespace caravan::gateway::openai {
namespace {

std::string_view TokenBytes(const text::Vocabulary& vocabulary, TokenId id) {
  if (id < 0 || id >= vocabulary.size()) return "";
  return vocabulary.tokens[id].bytes;
}

void WriteChatToken(const text::Vocabulary& vocabulary, TokenId id,
                    float logprob, JsonWriter& json) {
  json.Key("token").String(TokenText(vocabulary, id, ""));
  json.Key("logprob").Float(logprob);
  json.Key("bytes").BeginArray();
  for (const char byte : TokenBytes(vocabulary, id)) {
    json.Integer(static_cast<uint8_t>(byte));
  }
  json.EndArray();
}

// The candidates and the token itself, where it is not among them; of two
// tokens with one text the likelier counts.
void WriteCandidateMap(const text::Vocabulary& vocabulary,
                       const TokenPiece& token, int32_t count,
                       JsonWriter& json) {
  std::set<std::string> written;
  json.BeginObject();
  const auto write = [&](TokenId id, float logprob) {
    std::string text = TokenText(vocabulary, id, "bytes:");
    const auto [it, is_new] = written.insert(std::move(text));
    if (is_new) json.Key(*it).Float(logprob);
  };
  const size_t size = std::min<size_t>(token.candidates.size(), count);
  for (size_t i = 0; i < size; ++i) {
    write(token.candidates[i].id, token.candidates[i].logprob);
  }
  write(token.id, token.logprob.value_or(0));
  json.EndObject();
}

}  // namespace

std::string_view FinishName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kToolCalls:
      return "tool_calls";
  }
  return "stop";
}

std::string TokenText(const text::Vocabulary& vocabulary, TokenId id,
                      std::string_view prefix) {
  const std::string_view bytes = TokenBytes(vocabulary, id);
  if (!text::FirstInvalidUtf8(bytes)) return std::string(bytes);
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string escaped(prefix);
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    escaped += "\\x";
    escaped += kHex[byte >> 4];
    escaped += kHex[byte & 15];
  }
  return escaped;
}

void WriteUsage(const Finished& finished, JsonWriter& json) {
  json.BeginObject();
  json.Key("prompt_tokens").Integer(finished.prompt_token_count);
  json.Key("completion_tokens").Integer(finished.output_token_count);
  json.Key("total_tokens")
      .Integer(int64_t{finished.prompt_token_count} +
               finished.output_token_count);
  json.Key("prompt_tokens_details").BeginObject();
  json.Key("cached_tokens").Integer(finished.cached_token_count);
  json.EndObject().EndObject();
}

void WriteTokenIds(std::span<const TokenId> ids, JsonWriter& json) {
  json.BeginArray();
  for (const TokenId id : ids) json.Integer(id);
  json.EndArray();
}

void WriteTokenIds(std::span<const TokenPiece> tokens, JsonWriter& json) {
  json.BeginArray();
  for (const TokenPiece& token : tokens) json.Integer(token.id);
  json.EndArray();
}

void WriteFinish(const std::optional<FinishReason>& finish,
                 const std::optional<std::string>& stop_text,
                 const std::optional<TokenId>& stop_token_id,
                 JsonWriter& json) {
  json.Key("finish_reason");
  if (!finish) {
    json.Null();
    return;
  }
  json.String(FinishName(*finish));
  if (stop_text) {
    json.Key("stop_reason").String(*stop_text);
  } else if (stop_token_id) {
    json.Key("stop_reason").Integer(*stop_token_id);
  }
}

void WriteToolCalls(std::span<const ToolCall> calls, bool with_index,
                    JsonWriter& json) {
  json.Key("tool_calls").BeginArray();
  for (size_t i = 0; i < calls.size(); ++i) {
    json.BeginObject();
    if (with_index) json.Key("index").Integer(static_cast<int64_t>(i));
    json.Key("id").String(calls[i].id);
    json.Key("type").String("function");
    json.Key("function").BeginObject();
    json.Key("name").String(calls[i].name);
    json.Key("arguments").String(calls[i].arguments_json);
    json.EndObject().EndObject();
  }
  json.EndArray();
}

std::string ReceiptHeader(const Finished& finished) {
  return absl::Base64Escape(finished.receipt);
}

void WriteReceipt(const Finished& finished, JsonWriter& json) {
  json.Key("receipt").String(ReceiptHeader(finished));
  if (finished.inexact_resumes.empty()) return;
  json.Key("inexact_resumes").BeginArray();
  for (const InexactResume& resume : finished.inexact_resumes) {
    json.BeginObject();
    json.Key("index").Integer(resume.choice);
    json.Key("from_position").Integer(resume.from_position);
    json.Key("numerics_class").String(resume.numerics_class);
    json.EndObject();
  }
  json.EndArray();
}

void WriteChatLogprobs(const text::Vocabulary& vocabulary,
                       std::span<const TokenPiece> tokens, JsonWriter& json) {
  json.BeginObject().Key("content").BeginArray();
  for (const TokenPiece& token : tokens) {
    json.BeginObject();
    WriteChatToken(vocabulary, token.id, token.logprob.value_or(0), json);
    json.Key("top_logprobs").BeginArray();
    for (const Candidate& candidate : token.candidates) {
      json.BeginObject();
      WriteChatToken(vocabulary, candidate.id, candidate.logprob, json);
      json.EndObject();
    }
    json.EndArray().EndObject();
  }
  json.EndArray().Key("refusal").Null().EndObject();
}

CompletionLogprobs::CompletionLogprobs(const text::Vocabulary& vocabulary,
                                       int32_t candidate_count)
    : vocabulary_(vocabulary), candidate_count_(candidate_count) {
  for (JsonWriter* array : {&tokens_, &logprobs_, &candidates_, &offsets_}) {
    array->BeginArray();
  }
}

void CompletionLogprobs::AddPrompt(const PromptReady& prompt) {
  for (size_t i = 0; i < prompt.token_ids.size(); ++i) {
    const int32_t offset =
        i < prompt.text_offsets.size() ? prompt.text_offsets[i] : 0;
    if (i > 0 && i <= prompt.scores.size()) {
      AddToken(prompt.scores[i - 1], offset);
      continue;
    }
    tokens_.String(TokenText(vocabulary_, prompt.token_ids[i], "bytes:"));
    logprobs_.Null();
    candidates_.Null();
    offsets_.Integer(offset);
  }
}

void CompletionLogprobs::Add(std::span<const TokenPiece> tokens) {
  for (const TokenPiece& token : tokens) AddToken(token, token.text_offset);
}

void CompletionLogprobs::AddToken(const TokenPiece& token,
                                  int32_t text_offset) {
  tokens_.String(TokenText(vocabulary_, token.id, "bytes:"));
  logprobs_.Float(token.logprob.value_or(0));
  if (candidate_count_ > 0) {
    WriteCandidateMap(vocabulary_, token, candidate_count_, candidates_);
  }
  offsets_.Integer(text_offset);
}

void CompletionLogprobs::Write(JsonWriter& json) {
  json.BeginObject();
  json.Key("tokens").Raw(tokens_.EndArray().Take());
  json.Key("token_logprobs").Raw(logprobs_.EndArray().Take());
  json.Key("top_logprobs");
  candidate_count_ > 0 ? json.Raw(candidates_.EndArray().Take()) : json.Null();
  json.Key("text_offset").Raw(offsets_.EndArray().Take());
  json.EndObject();
}

}  // namespace caravan::gateway::openai
