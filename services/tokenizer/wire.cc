#include "services/tokenizer/wire.h"

#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::tokenizer {
namespace {

using jinja::Dict;
using jinja::List;
using jinja::Value;

void Set(std::string_view key, Value value, Dict* dict) {
  dict->Set(Value::String(key), std::move(value));
}

// A JSON object.
absl::StatusOr<Value> ParseObject(const std::string& json,
                                  const std::string& field) {
  const absl::StatusOr<Value> value = jinja::ParseJson(json);
  if (!value.ok()) {
    return FieldError(field, "a JSON object", ToStd(value.status().message()));
  }
  if (!value->is_dict()) {
    return FieldError(field, "a JSON object", value->TypeName());
  }
  return value;
}

absl::StatusOr<Value> ContentOf(const v1::ChatMessage& message,
                                const std::string& field) {
  if (message.content().empty()) return Value::MakeNone();
  std::string text;
  for (int i = 0; i < message.content_size(); ++i) {
    const v1::ContentPart& part = message.content(i);
    const std::string part_field = StrCat(field, ".content[", i, "]");
    if (part.kind_case() == v1::ContentPart::kImage) {
      return UnsupportedError(part_field + ".image", "send text only");
    }
    if (part.kind_case() != v1::ContentPart::kText) {
      return FieldError(part_field, "a text", "nothing");
    }
    if (i > 0) text += '\n';
    text += part.text();
  }
  return Value::String(text);
}

absl::StatusOr<Value> ToolCallsOf(const v1::ChatMessage& message,
                                  const std::string& field) {
  List calls;
  for (int i = 0; i < message.tool_calls_size(); ++i) {
    const v1::ToolCall& call = message.tool_calls(i);
    Value arguments = Value(Dict());
    if (!call.arguments_json().empty()) {
      CARAVAN_ASSIGN_OR_RETURN(
          arguments,
          ParseObject(call.arguments_json(),
                      StrCat(field, ".tool_calls[", i, "].arguments")));
    }
    Dict function;
    Set("name", Value::String(call.name()), &function);
    Set("arguments", std::move(arguments), &function);
    Dict entry;
    if (!call.id().empty()) Set("id", Value::String(call.id()), &entry);
    Set("type", Value::String("function"), &entry);
    Set("function", Value(std::move(function)), &entry);
    calls.push_back(Value(std::move(entry)));
  }
  return Value::MakeList(std::move(calls));
}

absl::StatusOr<Value> FromProto(const v1::ChatMessage& message,
                                const std::string& field) {
  if (message.role().empty()) {
    return FieldError(field + ".role", "given", "nothing");
  }
  Dict dict;
  Set("role", Value::String(message.role()), &dict);
  CARAVAN_ASSIGN_OR_RETURN(Value content, ContentOf(message, field));
  Set("content", std::move(content), &dict);
  if (message.has_name()) Set("name", Value::String(message.name()), &dict);
  if (message.has_tool_call_id()) {
    Set("tool_call_id", Value::String(message.tool_call_id()), &dict);
  }
  if (!message.tool_calls().empty()) {
    CARAVAN_ASSIGN_OR_RETURN(Value calls, ToolCallsOf(message, field));
    Set("tool_calls", std::move(calls), &dict);
  }
  return Value(std::move(dict));
}

// The tool as templates expect it: {"type": "function", "function": {...}}.
absl::StatusOr<Value> FromProto(const v1::Tool& tool,
                                const std::string& field) {
  CARAVAN_ASSIGN_OR_RETURN(Value definition,
                           ParseObject(tool.definition_json(), field));
  if (definition.dict().Find("function") != nullptr) return definition;
  Dict wrapped;
  Set("type", Value::String("function"), &wrapped);
  Set("function", std::move(definition), &wrapped);
  return Value(std::move(wrapped));
}

}  // namespace

absl::StatusOr<Conversation> FromProto(const v1::Conversation& conversation,
                                       const std::string& field) {
  if (conversation.messages().empty()) {
    return FieldError(field + ".messages", "at least one", "none");
  }
  Conversation out;
  for (int i = 0; i < conversation.messages_size(); ++i) {
    CARAVAN_ASSIGN_OR_RETURN(Value message,
                             FromProto(conversation.messages(i),
                                       StrCat(field, ".messages[", i, "]")));
    out.messages.push_back(std::move(message));
  }
  for (int i = 0; i < conversation.tools_size(); ++i) {
    if (!out.tools) out.tools.emplace();
    CARAVAN_ASSIGN_OR_RETURN(
        Value tool,
        FromProto(conversation.tools(i), StrCat(field, ".tools[", i, "]")));
    out.tools->push_back(std::move(tool));
  }
  if (conversation.has_add_generation_prompt()) {
    out.add_generation_prompt = conversation.add_generation_prompt();
  }
  if (!conversation.template_variables_json().empty()) {
    const std::string path = field + ".template_variables_json";
    CARAVAN_ASSIGN_OR_RETURN(
        const Value variables,
        ParseObject(conversation.template_variables_json(), path));
    if (variables.dict().Find("messages") != nullptr) {
      return FieldError(path, "without the variable messages", "messages");
    }
    out.variables = variables.dict();
  }
  return out;
}

}  // namespace caravan::tokenizer
