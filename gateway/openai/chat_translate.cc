#include "gateway/openai/chat_translate.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/sampling/params.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "gateway/openai/generation_fields.h"
#include "gateway/openai/tools_translate.h"

namespace caravan::gateway::openai {
namespace {

absl::StatusOr<std::string> ReadTextPart(const std::string& field,
                                         const Json& part) {
  if (!part.is_object()) return TypeError(field, "an object", part);
  ObjectReader reader(part, field);
  std::string type;
  CARAVAN_RETURN_IF_ERROR(reader.Read("type", type));
  if (type != "text" && type != "refusal") {
    return UnsupportedError(StrCat(field, ".type"), "use \"text\"");
  }
  std::optional<std::string> text;
  CARAVAN_RETURN_IF_ERROR(reader.Read(type, text));
  CARAVAN_RETURN_IF_ERROR(reader.RefuseUnknown());
  if (!text) return FieldError(StrCat(field, ".", type), "given", "nothing");
  return *std::move(text);
}

absl::Status ReadContent(ObjectReader& reader, Message& message) {
  const Json* value = reader.Find("content");
  if (value == nullptr) return absl::OkStatus();
  const std::string field = reader.PathOf("content");
  if (value->is_string()) {
    message.content.push_back(value->get<std::string>());
    return absl::OkStatus();
  }
  if (!value->is_array()) {
    return TypeError(field, "a string or an array of text parts", *value);
  }
  for (size_t i = 0; i < value->size(); ++i) {
    CARAVAN_ASSIGN_OR_RETURN(
        std::string text,
        ReadTextPart(StrCat(field, "[", i, "]"), (*value)[i]));
    message.content.push_back(std::move(text));
  }
  return absl::OkStatus();
}

absl::StatusOr<ToolCall> ReadToolCall(const std::string& field,
                                      const Json& json) {
  if (!json.is_object()) return TypeError(field, "an object", json);
  ToolCall call;
  ObjectReader reader(json, field);
  std::string type = "function";
  CARAVAN_RETURN_IF_ERROR(reader.Read("id", call.id));
  CARAVAN_RETURN_IF_ERROR(reader.Read("type", type));
  const Json* function = reader.Find("function");
  if (type != "function" || function == nullptr || !function->is_object()) {
    return FieldError(field, "a call of a function", Excerpt(json));
  }
  CARAVAN_RETURN_IF_ERROR(reader.RefuseUnknown());
  ObjectReader inner(*function, StrCat(field, ".function"));
  CARAVAN_RETURN_IF_ERROR(inner.Read("name", call.name));
  CARAVAN_RETURN_IF_ERROR(inner.Read("arguments", call.arguments_json));
  CARAVAN_RETURN_IF_ERROR(inner.RefuseUnknown());
  return call;
}

absl::Status ReadToolCalls(ObjectReader& reader, Message& message) {
  const Json* value = reader.Find("tool_calls");
  if (value == nullptr) return absl::OkStatus();
  const std::string field = reader.PathOf("tool_calls");
  if (!value->is_array()) return TypeError(field, "an array", *value);
  for (size_t i = 0; i < value->size(); ++i) {
    CARAVAN_ASSIGN_OR_RETURN(
        ToolCall call, ReadToolCall(StrCat(field, "[", i, "]"), (*value)[i]));
    message.tool_calls.push_back(std::move(call));
  }
  return absl::OkStatus();
}

absl::StatusOr<Message> ReadMessage(const std::string& field,
                                    const Json& json) {
  if (!json.is_object()) return TypeError(field, "an object", json);
  ObjectReader reader(json, field);
  Message message;
  CARAVAN_RETURN_IF_ERROR(reader.Read("role", message.role));
  if (message.role.empty()) {
    return FieldError(StrCat(field, ".role"), "given", "nothing");
  }
  CARAVAN_RETURN_IF_ERROR(ReadContent(reader, message));
  CARAVAN_RETURN_IF_ERROR(reader.Read("name", message.name));
  CARAVAN_RETURN_IF_ERROR(reader.Read("tool_call_id", message.tool_call_id));
  CARAVAN_RETURN_IF_ERROR(ReadToolCalls(reader, message));
  const auto empty = [](const Json& v) { return v.empty() || v == ""; };
  for (const std::string_view key :
       {"refusal", "audio", "function_call", "annotations"}) {
    CARAVAN_RETURN_IF_ERROR(reader.AllowOnly(key, empty, "leave it out"));
  }
  CARAVAN_RETURN_IF_ERROR(reader.RefuseUnknown());
  if (message.content.empty() && message.tool_calls.empty()) {
    return FieldError(StrCat(field, ".content"), "given", "nothing");
  }
  return message;
}

absl::Status ReadLogprobs(ObjectReader& reader, SamplingOverrides& sampling) {
  bool logprobs = false;
  std::optional<int32_t> top;
  CARAVAN_RETURN_IF_ERROR(reader.Read("logprobs", logprobs));
  CARAVAN_RETURN_IF_ERROR(reader.Read("top_logprobs", top));
  if (top && (*top < 0 || *top > sampling::kMaxLogprobCount)) {
    return FieldError("top_logprobs",
                      StrCat("in [0, ", sampling::kMaxLogprobCount, "]"),
                      StrCat(*top));
  }
  if (top && *top > 0 && !logprobs) {
    return FieldError("top_logprobs", "given with logprobs = true only",
                      "logprobs = false");
  }
  if (logprobs) sampling.logprob_count = top.value_or(0);
  return absl::OkStatus();
}

// max_completion_tokens is the newer name of max_tokens.
absl::Status ReadMaxCompletionTokens(ObjectReader& reader,
                                     StopOverrides& stop) {
  std::optional<int32_t> newer;
  CARAVAN_RETURN_IF_ERROR(reader.Read("max_completion_tokens", newer));
  if (!newer) return absl::OkStatus();
  if (stop.max_tokens && *stop.max_tokens != *newer) {
    return FieldError("max_completion_tokens",
                      StrCat("equal to max_tokens (", *stop.max_tokens, ")"),
                      StrCat(*newer));
  }
  stop.max_tokens = newer;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Conversation> ReadMessages(ObjectReader& reader) {
  const Json* value = reader.Find("messages");
  if (value == nullptr) return FieldError("messages", "given", "nothing");
  if (!value->is_array()) return TypeError("messages", "an array", *value);
  if (value->empty() || value->size() > kMaxMessages) {
    return FieldError("messages", StrCat("1 to ", kMaxMessages, " messages"),
                      StrCat(value->size()));
  }
  Conversation conversation;
  for (size_t i = 0; i < value->size(); ++i) {
    CARAVAN_ASSIGN_OR_RETURN(
        Message message, ReadMessage(StrCat("messages[", i, "]"), (*value)[i]));
    conversation.messages.push_back(std::move(message));
  }
  CARAVAN_RETURN_IF_ERROR(
      reader.Read("add_generation_prompt", conversation.add_generation_prompt));
  return conversation;
}

absl::StatusOr<GenerationRequest> TranslateChat(std::string_view body) {
  CARAVAN_ASSIGN_OR_RETURN(const Json json, ParseObject(body));
  ObjectReader reader(json, "");
  GenerationRequest request;
  request.endpoint = Endpoint::kChat;
  CARAVAN_ASSIGN_OR_RETURN(Conversation conversation, ReadMessages(reader));
  CARAVAN_RETURN_IF_ERROR(ReadTools(body, reader, conversation));
  request.prompts.push_back(std::move(conversation));
  CARAVAN_RETURN_IF_ERROR(ReadSharedFields(reader, request));
  CARAVAN_RETURN_IF_ERROR(ReadMaxCompletionTokens(reader, request.stop));
  CARAVAN_RETURN_IF_ERROR(ReadLogprobs(reader, request.sampling));
  CARAVAN_RETURN_IF_ERROR(ReadNeutralFields(reader));
  CARAVAN_RETURN_IF_ERROR(reader.RefuseUnknown());
  return request;
}

}  // namespace caravan::gateway::openai
