#include "gateway/stream/tool_calls.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/json.h"
#include "common/strings.h"

namespace caravan::gateway {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kPythonTag = "<|python_tag|>";
constexpr std::string_view kFunctionOpen = "<function=";
constexpr std::string_view kFunctionClose = "</function>";
// A longer text is words; bounds what parsing may cost.
constexpr size_t kMaxCallBytes = 256u << 10;
constexpr int kMaxDepth = 32;
constexpr size_t kMaxCalls = 128;
// Objects that keep the order of their keys are searched from the front.
constexpr int kMaxValues = 4096;

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

bool IsNameStart(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_';
}

bool IsNameByte(char c) {
  return IsNameStart(c) || c == '.' || c == '-' || (c >= '0' && c <= '9');
}

std::string_view TrimLeft(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  return text;
}

bool BeginEqually(std::string_view a, std::string_view b) {
  const size_t size = std::min(a.size(), b.size());
  return a.substr(0, size) == b.substr(0, size);
}

bool IsKnown(std::string_view name, std::span<const Tool> tools) {
  return std::any_of(tools.begin(), tools.end(),
                     [&](const Tool& tool) { return tool.name == name; });
}

// A text read from the left. A Take that fails leaves it as it was.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : rest_(text) {}

  bool Take(std::string_view token) {
    const std::string_view rest = TrimLeft(rest_);
    if (!rest.starts_with(token)) return false;
    rest_ = rest.substr(token.size());
    return true;
  }
  std::string_view TakeName() {
    std::string_view rest = TrimLeft(rest_);
    size_t size = 0;
    while (size < rest.size() && IsNameByte(rest[size])) ++size;
    rest_ = rest.substr(size);
    return rest.substr(0, size);
  }
  std::string_view TakeBytes(size_t size) {
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(taken.size());
    return taken;
  }
  void SkipSpace() { rest_ = TrimLeft(rest_); }
  bool AtEnd() const { return TrimLeft(rest_).empty(); }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

// --- JSON -------------------------------------------------------------------

// Bytes of the JSON object or array at the beginning of `text`; 0 where it
// does not end, nests too deep or has too many values.
size_t SizeOfJson(std::string_view text) {
  int depth = 0;
  int values = 1;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == ',' && ++values > kMaxValues) return 0;
    if ((c == '{' || c == '[') && ++depth > kMaxDepth) return 0;
    if ((c == '}' || c == ']') && --depth == 0) return i + 1;
  }
  return 0;
}

// The value at the cursor; nothing where it is not valid JSON.
std::optional<Json> TakeJson(Cursor* cursor) {
  cursor->SkipSpace();
  const size_t size = SizeOfJson(cursor->rest());
  if (size == 0) return std::nullopt;
  const std::string_view text = cursor->TakeBytes(size);
  Json json = ParseOrderedJson(text);
  if (json.is_discarded()) return std::nullopt;
  return json;
}

// An object, or a string that holds one.
std::optional<std::string> ArgumentsOf(const Json& value) {
  if (value.is_object()) return DumpJson(value);
  if (!value.is_string()) return std::nullopt;
  const auto& text = value.get_ref<const std::string&>();
  Cursor cursor(text);
  const std::optional<Json> inner = TakeJson(&cursor);
  if (!inner || !inner->is_object() || !cursor.AtEnd()) return std::nullopt;
  return text;
}

std::optional<ToolCall> CallOf(const Json& json) {
  if (!json.is_object()) return std::nullopt;
  const auto function = json.find("function");
  const Json& call =
      function != json.end() && function->is_object() ? *function : json;
  const auto name = call.find("name");
  if (name == call.end() || !name->is_string()) return std::nullopt;
  for (const char* const key : {"parameters", "arguments"}) {
    const auto value = call.find(key);
    if (value == call.end()) continue;
    std::optional<std::string> arguments = ArgumentsOf(*value);
    if (!arguments) return std::nullopt;
    return ToolCall{"", name->get<std::string>(), *std::move(arguments)};
  }
  return std::nullopt;
}

using Calls = std::optional<std::vector<ToolCall>>;

Calls JsonCalls(std::string_view text) {
  std::vector<ToolCall> calls;
  Cursor cursor(text);
  do {
    const std::optional<Json> json = TakeJson(&cursor);
    if (!json) return std::nullopt;
    const Json list = json->is_array() ? *json : Json::array({*json});
    for (const Json& element : list) {
      std::optional<ToolCall> call = CallOf(element);
      if (!call) return std::nullopt;
      calls.push_back(*std::move(call));
    }
    cursor.Take(";");
  } while (!cursor.AtEnd());
  return calls;
}

Calls TaggedCalls(std::string_view text) {
  std::vector<ToolCall> calls;
  Cursor cursor(text);
  while (!cursor.AtEnd()) {
    if (!cursor.Take(kFunctionOpen)) return std::nullopt;
    const std::string name(cursor.TakeName());
    if (!cursor.Take(">")) return std::nullopt;
    const std::optional<Json> arguments = TakeJson(&cursor);
    if (!arguments || !arguments->is_object()) return std::nullopt;
    cursor.Take(kFunctionClose);
    calls.push_back({"", name, DumpJson(*arguments)});
  }
  return calls;
}

// --- Python -----------------------------------------------------------------

// The literals that calls have: strings, numbers, True, False, None, lists,
// dicts.
class PythonReader {
 public:
  explicit PythonReader(std::string_view text) : cursor_(text) {}

  // [f(a=1), ...] up to the end.
  Calls CallList() {
    std::vector<ToolCall> calls;
    if (!cursor_.Take("[")) return std::nullopt;
    do {
      std::optional<ToolCall> call = Call("");
      if (!call) return std::nullopt;
      calls.push_back(*std::move(call));
    } while (cursor_.Take(","));
    if (!cursor_.Take("]") || !cursor_.AtEnd()) return std::nullopt;
    return calls;
  }

  // f.call(a=1) up to the end.
  Calls OneCall() {
    std::optional<ToolCall> call = Call(".call");
    if (!call || !cursor_.AtEnd()) return std::nullopt;
    return std::vector<ToolCall>{*std::move(call)};
  }

 private:
  std::optional<ToolCall> Call(std::string_view suffix) {
    std::string_view name = cursor_.TakeName();
    if (!name.ends_with(suffix)) return std::nullopt;
    name.remove_suffix(suffix.size());
    if (name.empty() || !IsNameStart(name.front()) || !cursor_.Take("(")) {
      return std::nullopt;
    }
    Json arguments = Json::object();
    while (!cursor_.Take(")")) {
      const std::string key(cursor_.TakeName());
      if (key.empty() || !cursor_.Take("=")) return std::nullopt;
      std::optional<Json> value = Value(0);
      if (!value) return std::nullopt;
      arguments[key] = *std::move(value);
      if (!cursor_.Take(",") && !cursor_.rest().starts_with(")")) {
        return std::nullopt;
      }
    }
    return ToolCall{"", std::string(name), DumpJson(arguments)};
  }

  std::optional<Json> Value(int depth) {
    if (depth > kMaxDepth || ++values_ > kMaxValues) return std::nullopt;
    if (cursor_.Take("'")) return String('\'');
    if (cursor_.Take("\"")) return String('"');
    if (cursor_.Take("[")) return List(depth);
    if (cursor_.Take("{")) return Dict(depth);
    return Word();
  }

  std::optional<Json> String(char quote) {
    std::string text;
    for (;;) {
      const std::string_view next = cursor_.TakeBytes(1);
      if (next.empty()) return std::nullopt;
      if (next.front() == quote) return Json(text);
      text += next.front() == '\\' ? Escape() : next.front();
    }
  }

  char Escape() {
    const std::string_view next = cursor_.TakeBytes(1);
    if (next == "n") return '\n';
    if (next == "t") return '\t';
    if (next == "r") return '\r';
    return next.empty() ? '\\' : next.front();
  }

  std::optional<Json> List(int depth) {
    Json list = Json::array();
    while (!cursor_.Take("]")) {
      std::optional<Json> value = Value(depth + 1);
      if (!value) return std::nullopt;
      list.push_back(*std::move(value));
      if (!cursor_.Take(",") && TrimLeft(cursor_.rest()).substr(0, 1) != "]") {
        return std::nullopt;
      }
    }
    return list;
  }

  std::optional<Json> Dict(int depth) {
    Json dict = Json::object();
    while (!cursor_.Take("}")) {
      const std::optional<Json> key = Value(depth + 1);
      if (!key || !key->is_string() || !cursor_.Take(":")) return std::nullopt;
      std::optional<Json> value = Value(depth + 1);
      if (!value) return std::nullopt;
      dict[key->get<std::string>()] = *std::move(value);
      if (!cursor_.Take(",") && TrimLeft(cursor_.rest()).substr(0, 1) != "}") {
        return std::nullopt;
      }
    }
    return dict;
  }

  // A number, or a name that stands for a value.
  std::optional<Json> Word() {
    cursor_.Take("+");
    const std::string_view word = cursor_.TakeName();
    if (word == "True" || word == "true") return Json(true);
    if (word == "False" || word == "false") return Json(false);
    if (word == "None" || word == "null") return Json(nullptr);
    Json number = ParseOrderedJson(word);
    if (!number.is_number()) return std::nullopt;
    return number;
  }

  Cursor cursor_;
  int values_ = 0;
};

// --- All forms --------------------------------------------------------------

std::string_view WithoutTag(std::string_view text) {
  text = TrimLeft(text);
  if (text.starts_with(kPythonTag)) text.remove_prefix(kPythonTag.size());
  return TrimLeft(text);
}

Calls CallsOf(std::string_view text) {
  if (text.starts_with("{")) return JsonCalls(text);
  if (text.starts_with(kFunctionOpen)) return TaggedCalls(text);
  if (text.starts_with("[")) {
    const bool json = TrimLeft(text.substr(1)).starts_with("{");
    return json ? JsonCalls(text) : PythonReader(text).CallList();
  }
  return PythonReader(text).OneCall();
}

// "[f(" or a beginning of it.
bool MayBeCallList(std::string_view text) {
  std::string_view rest = TrimLeft(text.substr(1));
  if (rest.empty() || rest.front() == '{') return true;
  if (!IsNameStart(rest.front())) return false;
  while (!rest.empty() && IsNameByte(rest.front())) rest.remove_prefix(1);
  return rest.empty() || rest.front() == '(';
}

}  // namespace

std::vector<ToolCall> ParseToolCalls(std::string_view text,
                                     std::span<const Tool> tools) {
  text = WithoutTag(text);
  if (text.empty() || text.size() > kMaxCallBytes) return {};
  Calls calls = CallsOf(text);
  if (!calls || calls->empty() || calls->size() > kMaxCalls) return {};
  for (const ToolCall& call : *calls) {
    if (!IsKnown(call.name, tools)) return {};
  }
  return *std::move(calls);
}

bool MayBecomeToolCalls(std::string_view text, std::span<const Tool> tools) {
  if (text.size() > kMaxCallBytes) return false;
  text = TrimLeft(text);
  if (text.size() < kPythonTag.size() && BeginEqually(text, kPythonTag)) {
    return true;
  }
  text = WithoutTag(text);
  if (text.empty()) return true;
  if (text.front() == '{') {
    const std::string_view inner = TrimLeft(text.substr(1));
    return inner.empty() || inner.front() == '"';
  }
  if (text.front() == '[') return MayBeCallList(text);
  if (BeginEqually(text, kFunctionOpen)) return true;
  return std::any_of(tools.begin(), tools.end(), [&](const Tool& tool) {
    return BeginEqually(text, StrCat(tool.name, ".call("));
  });
}

void ToolCallFilter::Hold(ChoiceDelta delta) {
  if (!held_) {
    held_ = std::move(delta);
    return;
  }
  std::move(delta.tokens.begin(), delta.tokens.end(),
            std::back_inserter(held_->tokens));
  held_->text += delta.text;
  held_->finish = delta.finish;
  held_->stop_text = std::move(delta.stop_text);
  held_->stop_token_id = delta.stop_token_id;
}

std::optional<ChoiceDelta> ToolCallFilter::Apply(ChoiceDelta delta) {
  if (words_) return delta;
  Hold(std::move(delta));
  if (held_->finish == FinishReason::kStop) {
    held_->tool_calls = ParseToolCalls(held_->text, tools_);
    if (!held_->tool_calls.empty()) {
      held_->text.clear();
      held_->finish = FinishReason::kToolCalls;
    }
    for (size_t i = 0; i < held_->tool_calls.size(); ++i) {
      held_->tool_calls[i].id = StrCat(id_prefix_, i);
    }
  } else if (!held_->finish && MayBecomeToolCalls(held_->text, tools_)) {
    return std::nullopt;
  }
  words_ = true;
  return std::exchange(held_, std::nullopt);
}

}  // namespace caravan::gateway
