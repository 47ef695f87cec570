#include "gateway/openai/chunk_renderer.h"

#include <iterator>

namespace caravan::gateway::openai {
namespace {

void Append(std::vector<std::string> from, std::vector<std::string>& to) {
  std::move(from.begin(), from.end(), std::back_inserter(to));
}

}  // namespace

std::vector<std::string> ChunkRenderer::Chunks(const StreamEvents& events) {
  std::vector<std::string> choices;
  if (events.started) {
    started_ = *events.started;
    prompts_.resize(request_.prompts.size());
    prompt_ids_written_ = events.repeated;
    if (!events.repeated) Append(StartChoices(), choices);
  }
  for (const PromptReady& prompt : events.prompts) {
    prompts_[prompt.prompt] = prompt;
    if (!events.repeated) Append(PromptChoices(prompt), choices);
  }
  for (const ChoiceDelta& delta : events.deltas) {
    Append(DeltaChoices(delta), choices);
  }
  const bool finished = events.finished.has_value();
  if (finished && choices.empty() && !request_.include_usage) {
    choices.push_back("[]");
  }
  std::vector<std::string> chunks;
  for (size_t i = 0; i < choices.size(); ++i) {
    const bool last =
        finished && !request_.include_usage && i + 1 == choices.size();
    chunks.push_back(Chunk(choices[i], last ? &*events.finished : nullptr));
  }
  if (finished && request_.include_usage) {
    chunks.push_back(UsageChunk(*events.finished));
  }
  return chunks;
}

void ChunkRenderer::BeginObject(std::string_view object,
                                JsonWriter& json) const {
  json.BeginObject();
  json.Key("id").String(head_.id);
  json.Key("object").String(object);
  json.Key("created").Integer(head_.created_unix_s);
  json.Key("model").String(started_.model);
}

void ChunkRenderer::WritePromptIds(JsonWriter& json) const {
  if (!request_.return_token_ids || prompts_.size() != 1) return;
  json.Key("prompt_token_ids");
  WriteTokenIds(prompts_[0].token_ids, json);
}

std::string ChunkRenderer::Chunk(std::string_view choices,
                                 const Finished* last) {
  JsonWriter json;
  BeginObject(chunk_object_, json);
  json.Key("system_fingerprint").String(started_.system_fingerprint);
  json.Key("choices").Raw(choices);
  if (request_.include_usage) json.Key("usage").Null();
  if (!prompt_ids_written_ && !prompts_.empty() &&
      !prompts_[0].token_ids.empty()) {
    WritePromptIds(json);
    prompt_ids_written_ = true;
  }
  if (last != nullptr) WriteReceipt(*last, json);
  json.EndObject();
  return json.Take();
}

std::string ChunkRenderer::UsageChunk(const Finished& finished) {
  JsonWriter json;
  BeginObject(chunk_object_, json);
  json.Key("system_fingerprint").String(started_.system_fingerprint);
  json.Key("choices").BeginArray().EndArray();
  json.Key("usage");
  WriteUsage(finished, json);
  WriteReceipt(finished, json);
  json.EndObject();
  return json.Take();
}

}  // namespace caravan::gateway::openai
