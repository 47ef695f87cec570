#include "gateway/openai/tokenize_translate.h"

#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "gateway/openai/chat_translate.h"
#include "gateway/openai/json_reader.h"
#include "gateway/openai/json_writer.h"
#include "gateway/openai/tools_translate.h"

namespace caravan::gateway::openai {
namespace {

absl::StatusOr<PromptInput> ReadTextOrMessages(std::string_view body,
                                               ObjectReader& reader) {
  const Json* prompt = reader.Find("prompt");
  const Json* messages = reader.Find("messages");
  if ((prompt == nullptr) == (messages == nullptr)) {
    return FieldError("prompt", "given, or messages, and not both",
                      prompt == nullptr ? "neither" : "both");
  }
  if (messages != nullptr) {
    CARAVAN_ASSIGN_OR_RETURN(Conversation conversation, ReadMessages(reader));
    CARAVAN_RETURN_IF_ERROR(ReadTools(body, reader, conversation));
    return PromptInput(std::move(conversation));
  }
  if (!prompt->is_string()) return TypeError("prompt", "a string", *prompt);
  return PromptInput(prompt->get<std::string>());
}

void WriteModel(const ModelEntry& model, JsonWriter& json) {
  json.BeginObject();
  json.Key("id").String(model.name);
  json.Key("object").String("model");
  json.Key("created").Integer(model.created_unix_s);
  json.Key("owned_by").String("caravan");
  json.Key("max_model_len").Integer(model.context_length);
  json.EndObject();
}

}  // namespace

absl::StatusOr<TokenizeRequest> TranslateTokenize(std::string_view body) {
  CARAVAN_ASSIGN_OR_RETURN(const Json json, ParseObject(body));
  ObjectReader reader(json, "");
  TokenizeRequest request;
  CARAVAN_RETURN_IF_ERROR(reader.Read("model", request.model));
  CARAVAN_ASSIGN_OR_RETURN(request.prompt, ReadTextOrMessages(body, reader));
  CARAVAN_RETURN_IF_ERROR(
      reader.Read("add_special_tokens", request.add_special_tokens));
  CARAVAN_RETURN_IF_ERROR(reader.RefuseUnknown());
  return request;
}

absl::StatusOr<DetokenizeRequest> TranslateDetokenize(std::string_view body) {
  CARAVAN_ASSIGN_OR_RETURN(const Json json, ParseObject(body));
  ObjectReader reader(json, "");
  DetokenizeRequest request;
  CARAVAN_RETURN_IF_ERROR(reader.Read("model", request.model));
  if (reader.Find("tokens") == nullptr) {
    return FieldError("tokens", "given", "nothing");
  }
  CARAVAN_RETURN_IF_ERROR(reader.ReadTokenIds("tokens", request.tokens));
  CARAVAN_RETURN_IF_ERROR(
      reader.Read("skip_special_tokens", request.skip_special_tokens));
  CARAVAN_RETURN_IF_ERROR(reader.RefuseUnknown());
  return request;
}

std::string TokenizeBody(std::span<const TokenId> tokens) {
  JsonWriter json;
  json.BeginObject().Key("tokens").BeginArray();
  for (const TokenId id : tokens) json.Integer(id);
  json.EndArray();
  json.Key("count").Integer(static_cast<int64_t>(tokens.size()));
  json.EndObject();
  return json.Take();
}

std::string DetokenizeBody(std::string_view text) {
  JsonWriter json;
  json.BeginObject().Key("prompt").String(text).EndObject();
  return json.Take();
}

std::string ModelBody(const ModelEntry& model) {
  JsonWriter json;
  WriteModel(model, json);
  return json.Take();
}

std::string ModelListBody(std::span<const ModelEntry> models) {
  JsonWriter json;
  json.BeginObject().Key("object").String("list");
  json.Key("data").BeginArray();
  for (const ModelEntry& model : models) WriteModel(model, json);
  json.EndArray().EndObject();
  return json.Take();
}

}  // namespace caravan::gateway::openai
