#include "gateway/openai/renderer.h"

#include <string_view>
#include <utility>

#include "gateway/openai/chunk_renderer.h"

namespace caravan::gateway::openai {
namespace {

class ChatRenderer final : public ChunkRenderer {
 public:
  ChatRenderer(const GenerationRequest& request, ResponseHead head)
      : ChunkRenderer(request, std::move(head), "chat.completion.chunk") {}

  std::string Body(const Completion& completion) override;

 protected:
  std::vector<std::string> StartChoices() override;
  std::vector<std::string> PromptChoices(const PromptReady&) override {
    return {};
  }
  std::vector<std::string> DeltaChoices(const ChoiceDelta& delta) override;

 private:
  bool HasContent(const ChoiceDelta& delta) const;
  void WriteLogprobs(std::span<const TokenPiece> tokens,
                     JsonWriter& json) const;
  void WriteChoice(int32_t index, const CompletedChoice& choice,
                   JsonWriter& json) const;
};

class CompletionRenderer final : public ChunkRenderer {
 public:
  CompletionRenderer(const GenerationRequest& request, ResponseHead head)
      : ChunkRenderer(request, std::move(head), "text_completion") {}

  std::string Body(const Completion& completion) override;

 protected:
  std::vector<std::string> StartChoices() override { return {}; }
  std::vector<std::string> PromptChoices(const PromptReady& prompt) override;
  std::vector<std::string> DeltaChoices(const ChoiceDelta& delta) override;

 private:
  // `prompt` only where it is echoed in this object.
  void WriteLogprobs(const PromptReady* prompt,
                     std::span<const TokenPiece> tokens,
                     JsonWriter& json) const;
  void WriteChoice(int32_t index, const CompletedChoice& choice,
                   JsonWriter& json) const;
};

// --- Chat ------------------------------------------------------------------

// Each choice begins with its role.
std::vector<std::string> ChatRenderer::StartChoices() {
  std::vector<std::string> chunks;
  for (int32_t i = 0; i < request_.n; ++i) {
    JsonWriter json;
    json.BeginArray().BeginObject();
    json.Key("index").Integer(i);
    json.Key("delta").BeginObject();
    json.Key("role").String("assistant").Key("content").String("");
    json.EndObject();
    json.Key("logprobs").Null().Key("finish_reason").Null();
    json.EndObject().EndArray();
    chunks.push_back(json.Take());
  }
  return chunks;
}

bool ChatRenderer::HasContent(const ChoiceDelta& delta) const {
  const bool tokens_wanted =
      request_.return_token_ids || request_.sampling.logprob_count.has_value();
  return !delta.text.empty() || !delta.tool_calls.empty() ||
         (tokens_wanted && !delta.tokens.empty());
}

void ChatRenderer::WriteLogprobs(std::span<const TokenPiece> tokens,
                                 JsonWriter& json) const {
  json.Key("logprobs");
  if (request_.sampling.logprob_count) {
    WriteChatLogprobs(vocabulary(), tokens, json);
  } else {
    json.Null();
  }
}

std::vector<std::string> ChatRenderer::DeltaChoices(const ChoiceDelta& delta) {
  std::vector<std::string> chunks;
  if (HasContent(delta)) {
    JsonWriter json;
    json.BeginArray().BeginObject();
    json.Key("index").Integer(IndexOf(delta));
    json.Key("delta").BeginObject();
    if (delta.tool_calls.empty()) {
      json.Key("content").String(delta.text);
    } else {
      WriteToolCalls(delta.tool_calls, /*with_index=*/true, json);
    }
    json.EndObject();
    WriteLogprobs(delta.tokens, json);
    json.Key("finish_reason").Null();
    if (request_.return_token_ids) {
      json.Key("token_ids");
      WriteTokenIds(delta.tokens, json);
    }
    json.EndObject().EndArray();
    chunks.push_back(json.Take());
  }
  if (delta.finish) {
    JsonWriter json;
    json.BeginArray().BeginObject();
    json.Key("index").Integer(IndexOf(delta));
    json.Key("delta").BeginObject().EndObject();
    json.Key("logprobs").Null();
    WriteFinish(delta.finish, delta.stop_text, delta.stop_token_id, json);
    json.EndObject().EndArray();
    chunks.push_back(json.Take());
  }
  return chunks;
}

void ChatRenderer::WriteChoice(int32_t index, const CompletedChoice& choice,
                               JsonWriter& json) const {
  json.BeginObject();
  json.Key("index").Integer(index);
  json.Key("message").BeginObject();
  json.Key("role").String("assistant");
  if (choice.tool_calls.empty()) {
    json.Key("content").String(choice.text);
  } else {
    json.Key("content").Null();
    WriteToolCalls(choice.tool_calls, /*with_index=*/false, json);
  }
  json.Key("refusal").Null();
  json.EndObject();
  WriteLogprobs(choice.tokens, json);
  WriteFinish(choice.finish, choice.stop_text, choice.stop_token_id, json);
  if (request_.return_token_ids) {
    json.Key("token_ids");
    WriteTokenIds(choice.tokens, json);
  }
  json.EndObject();
}

std::string ChatRenderer::Body(const Completion& completion) {
  started_ = completion.started;
  prompts_ = completion.prompts;
  JsonWriter json;
  BeginObject("chat.completion", json);
  json.Key("choices").BeginArray();
  for (size_t i = 0; i < completion.choices.size(); ++i) {
    WriteChoice(static_cast<int32_t>(i), completion.choices[i], json);
  }
  json.EndArray();
  json.Key("usage");
  WriteUsage(completion.finished, json);
  json.Key("system_fingerprint").String(started_.system_fingerprint);
  WritePromptIds(json);
  json.EndObject();
  return json.Take();
}

// --- Completions -----------------------------------------------------------

void CompletionRenderer::WriteLogprobs(const PromptReady* prompt,
                                       std::span<const TokenPiece> tokens,
                                       JsonWriter& json) const {
  json.Key("logprobs");
  if (!request_.sampling.logprob_count) {
    json.Null();
    return;
  }
  CompletionLogprobs logprobs(vocabulary(), *request_.sampling.logprob_count);
  if (prompt != nullptr) logprobs.AddPrompt(*prompt);
  logprobs.Add(tokens);
  logprobs.Write(json);
}

// An echoed prompt is the first text of each of its choices. Ids of several
// prompts come with their choices; those of one stand in the chunk itself.
std::vector<std::string> CompletionRenderer::PromptChoices(
    const PromptReady& prompt) {
  std::vector<std::string> chunks;
  const bool with_ids = request_.return_token_ids && prompts_.size() > 1;
  if (!request_.echo && !with_ids) return chunks;
  for (int32_t i = 0; i < request_.n; ++i) {
    JsonWriter json;
    json.BeginArray().BeginObject();
    json.Key("text").String(request_.echo ? prompt.text : "");
    json.Key("index").Integer(prompt.prompt * request_.n + i);
    WriteLogprobs(request_.echo ? &prompt : nullptr, {}, json);
    json.Key("finish_reason").Null();
    if (with_ids) {
      json.Key("prompt_token_ids");
      WriteTokenIds(prompt.token_ids, json);
    }
    json.EndObject().EndArray();
    chunks.push_back(json.Take());
  }
  return chunks;
}

std::vector<std::string> CompletionRenderer::DeltaChoices(
    const ChoiceDelta& delta) {
  const bool tokens_wanted =
      request_.return_token_ids || request_.sampling.logprob_count.has_value();
  if (delta.text.empty() && !delta.finish &&
      (!tokens_wanted || delta.tokens.empty())) {
    return {};
  }
  JsonWriter json;
  json.BeginArray().BeginObject();
  json.Key("text").String(delta.text);
  json.Key("index").Integer(IndexOf(delta));
  WriteLogprobs(nullptr, delta.tokens, json);
  WriteFinish(delta.finish, delta.stop_text, delta.stop_token_id, json);
  if (request_.return_token_ids) {
    json.Key("token_ids");
    WriteTokenIds(delta.tokens, json);
  }
  json.EndObject().EndArray();
  return {json.Take()};
}

void CompletionRenderer::WriteChoice(int32_t index,
                                     const CompletedChoice& choice,
                                     JsonWriter& json) const {
  const PromptReady& prompt = prompts_[index / request_.n];
  json.BeginObject();
  json.Key("text").String(request_.echo ? prompt.text + choice.text
                                        : choice.text);
  json.Key("index").Integer(index);
  WriteLogprobs(request_.echo ? &prompt : nullptr, choice.tokens, json);
  WriteFinish(choice.finish, choice.stop_text, choice.stop_token_id, json);
  if (request_.return_token_ids) {
    json.Key("token_ids");
    WriteTokenIds(choice.tokens, json);
    json.Key("prompt_token_ids");
    WriteTokenIds(prompt.token_ids, json);
  }
  json.EndObject();
}

std::string CompletionRenderer::Body(const Completion& completion) {
  started_ = completion.started;
  prompts_ = completion.prompts;
  JsonWriter json;
  BeginObject("text_completion", json);
  json.Key("choices").BeginArray();
  for (size_t i = 0; i < completion.choices.size(); ++i) {
    WriteChoice(static_cast<int32_t>(i), completion.choices[i], json);
  }
  json.EndArray();
  json.Key("usage");
  WriteUsage(completion.finished, json);
  json.Key("system_fingerprint").String(started_.system_fingerprint);
  WritePromptIds(json);
  json.EndObject();
  return json.Take();
}

}  // namespace

std::unique_ptr<Renderer> MakeRenderer(const GenerationRequest& request,
                                       ResponseHead head) {
  if (request.endpoint == Endpoint::kChat) {
    return std::make_unique<ChatRenderer>(request, std::move(head));
  }
  return std::make_unique<CompletionRenderer>(request, std::move(head));
}

}  // namespace caravan::gateway::openai
