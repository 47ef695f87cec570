#include "gateway/openai/tools_translate.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::gateway::openai {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr size_t kMaxNameBytes = 64;
// Objects that keep their order are searched from the front.
constexpr size_t kMaxKeys = 1024;
constexpr int kMaxDefinitionDepth = 64;

bool IsNameByte(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' ||
         c == '-' || c == '.';
}

absl::Status CheckName(const std::string& field, const std::string& name) {
  const bool valid = !name.empty() && name.size() <= kMaxNameBytes &&
                     std::all_of(name.begin(), name.end(), IsNameByte);
  if (valid) return absl::OkStatus();
  return FieldError(
      field,
      StrCat("1 to ", kMaxNameBytes, " letters, digits, '_', '-' or '.'"),
      Excerpt(Json(name)));
}

absl::StatusOr<std::string> ReadFunction(const std::string& field,
                                         const Json& function) {
  ObjectReader reader(function, field);
  std::string name;
  std::string description;
  bool strict = false;
  CARAVAN_RETURN_IF_ERROR(reader.Read("name", name));
  CARAVAN_RETURN_IF_ERROR(CheckName(StrCat(field, ".name"), name));
  CARAVAN_RETURN_IF_ERROR(reader.Read("description", description));
  const Json* parameters = reader.Find("parameters");
  if (parameters != nullptr && !parameters->is_object()) {
    return TypeError(StrCat(field, ".parameters"), "an object", *parameters);
  }
  CARAVAN_RETURN_IF_ERROR(reader.Read("strict", strict));
  if (strict) {
    return UnsupportedError(StrCat(field, ".strict"),
                            "leave it out: arguments are not constrained");
  }
  CARAVAN_RETURN_IF_ERROR(reader.RefuseUnknown());
  return name;
}

// Keys of the widest object.
size_t WidthOf(const Json& value) {
  size_t width = value.is_object() ? value.size() : 0;
  if (!value.is_structured()) return width;
  for (const Json& element : value) width = std::max(width, WidthOf(element));
  return width;
}

absl::Status CheckWidth(const std::string& field, const Json& value) {
  const size_t width = WidthOf(value);
  if (width <= kMaxKeys) return absl::OkStatus();
  return FieldError(field, StrCat("objects of at most ", kMaxKeys, " keys"),
                    StrCat(width));
}

// Bounds the nesting before anything recursive sees the text.
bool IsFlatEnough(std::string_view json) {
  int depth = 0;
  int deepest = 0;
  for (const char c : json) {
    if (c == '{' || c == '[') deepest = std::max(deepest, ++depth);
    if (c == '}' || c == ']') --depth;
  }
  return deepest <= kMaxDefinitionDepth;
}

// The value of "tools" with its keys in the order of the body.
OrderedJson ToolsInOrder(std::string_view body) {
  const auto keep = [](int depth, OrderedJson::parse_event_t event,
                       OrderedJson& parsed) {
    return depth != 1 || event != OrderedJson::parse_event_t::key ||
           parsed == "tools";
  };
  const OrderedJson ordered = OrderedJson::parse(body.begin(), body.end(), keep,
                                                 /*allow_exceptions=*/false);
  return ordered.is_object() ? ordered.value("tools", OrderedJson::array())
                             : OrderedJson::array();
}

absl::Status ReadToolList(std::string_view body, const Json& tools,
                          Conversation& conversation) {
  if (!tools.is_array()) return TypeError("tools", "an array", tools);
  CARAVAN_RETURN_IF_ERROR(CheckWidth("tools", tools));
  const OrderedJson ordered = ToolsInOrder(body);
  for (size_t i = 0; i < ordered.size(); ++i) {
    const std::string field = StrCat("tools[", i, "]");
    if (!ordered[i].is_object()) {
      return TypeError(field, "an object", tools[i]);
    }
    CARAVAN_ASSIGN_OR_RETURN(Tool tool,
                             ReadToolDefinition(field, ordered[i].dump()));
    CARAVAN_RETURN_IF_ERROR(AddTool(field, std::move(tool), conversation));
  }
  return absl::OkStatus();
}

bool IsEmptyArray(const Json& value) {
  return value.is_array() && value.empty();
}

bool IsNone(const Json& value) { return value == "none"; }

}  // namespace

absl::StatusOr<Tool> ReadToolDefinition(const std::string& field,
                                        std::string definition_json) {
  if (definition_json.size() > kMaxToolBytes ||
      !IsFlatEnough(definition_json)) {
    return FieldError(field,
                      StrCat("at most ", kMaxToolBytes, " bytes, nested at ",
                             "most ", kMaxDefinitionDepth, " deep"),
                      StrCat(definition_json.size(), " bytes"));
  }
  const Json json = Json::parse(definition_json, /*cb=*/nullptr,
                                /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return FieldError(field, "a JSON object", "something else");
  }
  CARAVAN_RETURN_IF_ERROR(CheckWidth(field, json));
  Tool tool;
  tool.definition_json = std::move(definition_json);
  if (!json.contains("function") && !json.contains("type")) {
    CARAVAN_ASSIGN_OR_RETURN(tool.name, ReadFunction(field, json));
    return tool;
  }
  ObjectReader reader(json, field);
  std::string type;
  CARAVAN_RETURN_IF_ERROR(reader.Read("type", type));
  if (type != "function") {
    return UnsupportedError(StrCat(field, ".type"), "use \"function\"");
  }
  const Json* function = reader.Find("function");
  if (function == nullptr || !function->is_object()) {
    return FieldError(StrCat(field, ".function"), "an object",
                      function == nullptr ? "nothing" : Excerpt(*function));
  }
  CARAVAN_RETURN_IF_ERROR(reader.RefuseUnknown());
  CARAVAN_ASSIGN_OR_RETURN(tool.name,
                           ReadFunction(StrCat(field, ".function"), *function));
  return tool;
}

absl::StatusOr<bool> AllowsCalls(std::string_view field, const Json& choice) {
  if (choice == "auto") return true;
  if (choice == "none") return false;
  if (choice == "required" || choice.is_object()) {
    return UnsupportedError(field,
                            "use \"auto\" or \"none\": no call can be forced");
  }
  return TypeError(field, "\"auto\" or \"none\"", choice);
}

absl::Status AddTool(const std::string& field, Tool tool,
                     Conversation& conversation) {
  std::vector<Tool>& tools = conversation.tools;
  if (tools.size() >= kMaxTools) {
    return FieldError("tools", StrCat("at most ", kMaxTools), "more");
  }
  size_t bytes = tool.definition_json.size();
  for (const Tool& other : tools) {
    bytes += other.definition_json.size();
    if (other.name == tool.name) {
      return FieldError(StrCat(field, ".function.name"), "unique",
                        StrCat(tool.name, " again"));
    }
  }
  if (bytes > kMaxToolBytes) {
    return FieldError(
        "tools", StrCat("definitions of at most ", kMaxToolBytes, " bytes"),
        StrCat(bytes));
  }
  tools.push_back(std::move(tool));
  return absl::OkStatus();
}

absl::Status ReadTools(std::string_view body, ObjectReader& reader,
                       Conversation& conversation) {
  const Json* tools = reader.Find("tools");
  const Json* choice = reader.Find("tool_choice");
  bool parallel = true;
  CARAVAN_RETURN_IF_ERROR(reader.Read("parallel_tool_calls", parallel));
  if (tools != nullptr) {
    CARAVAN_RETURN_IF_ERROR(ReadToolList(body, *tools, conversation));
  }
  const bool any = !conversation.tools.empty();
  if (!parallel && any) {
    return UnsupportedError("parallel_tool_calls",
                            "leave it out: the model decides");
  }
  if (choice == nullptr) return absl::OkStatus();
  CARAVAN_ASSIGN_OR_RETURN(const bool allowed,
                           AllowsCalls("tool_choice", *choice));
  if (allowed && !any) {
    return FieldError("tool_choice", "given with tools only", "\"auto\"");
  }
  if (!allowed) conversation.tools.clear();
  return absl::OkStatus();
}

absl::Status RefuseTools(ObjectReader& reader) {
  reader.Accept("parallel_tool_calls");
  CARAVAN_RETURN_IF_ERROR(
      reader.AllowOnly("tools", IsEmptyArray, "send them to chat completions"));
  return reader.AllowOnly("tool_choice", IsNone, "use \"none\"");
}

}  // namespace caravan::gateway::openai
