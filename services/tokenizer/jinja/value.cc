#include "services/tokenizer/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/utf8.h"

namespace caravan::jinja {
namespace {

using text::DecodeUtf8;
using text::Utf8Size;

absl::Status TypeError(std::string_view message) {
  return MakeError(Reason::kTemplateError, message);
}

std::string Hex(uint32_t value, int digits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out(digits, '0');
  for (int i = digits - 1; i >= 0; --i, value >>= 4) {
    out[i] = kDigits[value & 15];
  }
  return out;
}

struct PrintableRange {
  uint32_t first;
  uint32_t last;
};

constexpr PrintableRange kPrintable[] = {
#include "services/tokenizer/jinja/printable_table.inc"
};

// Python's str.isprintable.
bool IsPrintable(uint32_t code_point) {
  const auto* const range = std::lower_bound(
      std::begin(kPrintable), std::end(kPrintable), code_point,
      [](const PrintableRange& r, uint32_t value) { return r.last < value; });
  return range != std::end(kPrintable) && range->first <= code_point;
}

// What stands for a character that is not printable.
std::string PythonEscape(uint32_t c) {
  if (c == '\n') return "\\n";
  if (c == '\r') return "\\r";
  if (c == '\t') return "\\t";
  if (c < 0x100) return "\\x" + Hex(c, 2);
  return c < 0x10000 ? "\\u" + Hex(c, 4) : "\\U" + Hex(c, 8);
}

// As Python chooses the quotes.
std::string QuotedText(std::string_view bytes) {
  const bool single = bytes.find('\'') != std::string_view::npos;
  const bool both = single && bytes.find('"') != std::string_view::npos;
  const char quote = single && !both ? '"' : '\'';
  std::string out(1, quote);
  while (!bytes.empty()) {
    const auto [kind, code_point, size] = DecodeUtf8(bytes);
    if (bytes.front() == quote || bytes.front() == '\\') {
      out += '\\';
      out += bytes.front();
    } else if (IsPrintable(code_point)) {
      out += bytes.substr(0, size);
    } else {
      out += PythonEscape(code_point);
    }
    bytes.remove_prefix(size);
  }
  out += quote;
  return out;
}

void AppendUtf16Escape(uint32_t unit, std::string* out) {
  *out += "\\u" + Hex(unit, 4);
}

void AppendJsonString(std::string_view bytes, bool ensure_ascii,
                      std::string* out) {
  *out += '"';
  for (size_t i = 0; i < bytes.size();) {
    const char c = bytes[i];
    const int size = Utf8Size(c);
    const auto byte = static_cast<unsigned char>(c);
    constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b";
    constexpr std::string_view kLetters = "\"\\nrtfb";
    if (const size_t at = kEscaped.find(c); at != std::string_view::npos) {
      *out += '\\';
      *out += kLetters[at];
    } else if (byte < 0x20) {
      AppendUtf16Escape(byte, out);
    } else if (size == 1 || !ensure_ascii) {
      out->append(bytes.substr(i, size));
    } else {
      const uint32_t code_point = DecodeUtf8(bytes.substr(i)).code_point;
      if (code_point < 0x10000) {
        AppendUtf16Escape(code_point, out);
      } else {
        AppendUtf16Escape(0xD800 + ((code_point - 0x10000) >> 10), out);
        AppendUtf16Escape(0xDC00 + ((code_point - 0x10000) & 0x3FF), out);
      }
    }
    i += size;
  }
  *out += '"';
}

// Of the value itself, whatever it holds.
constexpr int64_t kNodeWeight = 16;
constexpr int64_t kMaxWeight = int64_t{1} << 45;

int64_t Sum(int64_t a, int64_t b) { return std::min(a + b, kMaxWeight); }

// Writes one value and what is in it.
class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}

  absl::Status Write(const Value& value, int depth) {
    if (depth > kMaxDepth) return TypeError("value is nested too deep");
    if (static_cast<int64_t>(out_.size()) > style_.max_bytes) {
      return TypeError(
          StrCat("JSON is longer than ", style_.max_bytes, " bytes"));
    }
    if (value.is_string()) {
      AppendJsonString(value.text().bytes(), style_.ensure_ascii, &out_);
    } else if (value.is_bool()) {
      out_ += value.as_bool() ? "true" : "false";
    } else if (value.is_int()) {
      StrAppend(&out_, value.as_int());
    } else if (value.is_float()) {
      WriteFloat(value.as_float());
    } else if (value.is_none()) {
      out_ += "null";
    } else if (value.is_sequence()) {
      return WriteList(value.items(), depth);
    } else if (value.is_dict()) {
      return WriteDict(value.dict(), depth);
    } else {
      return TypeError(StrCat("object of type ", value.TypeName(),
                              " is not JSON serializable"));
    }
    return absl::OkStatus();
  }

  std::string Take() { return std::move(out_); }

 private:
  static constexpr int kMaxDepth = 200;

  void WriteFloat(double value) {
    out_ += std::isnan(value)   ? "NaN"
            : std::isinf(value) ? (value > 0 ? "Infinity" : "-Infinity")
                                : FloatText(value);
  }

  void NewLine(int depth) {
    if (!style_.indent) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(std::max(0, *style_.indent)) * depth, ' ');
  }

  absl::Status WriteList(const List& items, int depth) {
    if (items.empty()) {
      out_ += "[]";
      return absl::OkStatus();
    }
    out_ += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      NewLine(depth + 1);
      CARAVAN_RETURN_IF_ERROR(Write(items[i], depth + 1));
    }
    NewLine(depth);
    out_ += ']';
    return absl::OkStatus();
  }

  absl::Status WriteDict(const Dict& dict, int depth) {
    if (dict.size() == 0) {
      out_ += "{}";
      return absl::OkStatus();
    }
    std::vector<std::pair<std::string, const Value*>> members;
    for (const auto& [key, value] : dict.entries()) {
      CARAVAN_ASSIGN_OR_RETURN(std::string name, KeyText(key));
      members.emplace_back(std::move(name), &value);
    }
    if (style_.sort_keys) {
      std::stable_sort(
          members.begin(), members.end(),
          [](const auto& a, const auto& b) { return a.first < b.first; });
    }
    out_ += '{';
    bool first = true;
    for (const auto& [name, value] : members) {
      if (!first) out_ += style_.item_separator;
      first = false;
      NewLine(depth + 1);
      AppendJsonString(name, style_.ensure_ascii, &out_);
      out_ += style_.key_separator;
      CARAVAN_RETURN_IF_ERROR(Write(*value, depth + 1));
    }
    NewLine(depth);
    out_ += '}';
    return absl::OkStatus();
  }

  static absl::StatusOr<std::string> KeyText(const Value& key) {
    if (key.is_string()) return key.text().bytes();
    if (key.is_bool()) return std::string(key.as_bool() ? "true" : "false");
    if (key.is_none()) return std::string("null");
    if (key.is_number()) return Repr(key);
    return TypeError(StrCat("keys must be str, int, float, bool or None, not ",
                            key.TypeName()));
  }

  const JsonStyle& style_;
  std::string out_;
};

std::string ReprList(const List& items, bool is_tuple) {
  std::string out = is_tuple ? "(" : "[";
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    out += Repr(items[i]);
  }
  if (is_tuple && items.size() == 1) out += ',';
  out += is_tuple ? ')' : ']';
  return out;
}

std::string ReprDict(const Dict& dict) {
  std::string out = "{";
  for (const auto& [key, value] : dict.entries()) {
    if (out.size() > 1) out += ", ";
    out += Repr(key);
    out += ": ";
    out += Repr(value);
  }
  out += '}';
  return out;
}

bool EqualLists(const List& a, const List& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), Equal);
}

bool EqualDicts(const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  return std::all_of(a.entries().begin(), a.entries().end(),
                     [&](const auto& entry) {
                       const Value* const other = b.Find(entry.first);
                       return other != nullptr && Equal(entry.second, *other);
                     });
}

absl::StatusOr<bool> LessLists(const List& a, const List& b) {
  const size_t common = std::min(a.size(), b.size());
  for (size_t i = 0; i < common; ++i) {
    if (!Equal(a[i], b[i])) return Less(a[i], b[i]);
  }
  return a.size() < b.size();
}

}  // namespace

void Value::SetSequence(List items, bool is_tuple) {
  int depth = 0;
  int64_t weight = kNodeWeight;
  for (const Value& item : items) {
    depth = std::max(depth, item.depth());
    weight = Sum(weight, item.weight());
  }
  data_ = Sequence{std::make_shared<const List>(std::move(items)), is_tuple,
                   depth + 1, weight};
}

void Dict::Set(Value key, Value value) {
  depth_ = std::max({depth_, key.depth() + 1, value.depth() + 1});
  weight_ = Sum(weight_, Sum(key.weight(), value.weight()));
  if (key.is_string()) {
    const auto [it, inserted] =
        text_keys_.try_emplace(key.text().bytes(), entries_.size());
    if (!inserted) {
      entries_[it->second].second = std::move(value);
      return;
    }
  } else {
    for (auto& [known, old] : entries_) {
      if (Equal(known, key)) {
        old = std::move(value);
        return;
      }
    }
  }
  entries_.emplace_back(std::move(key), std::move(value));
}

const Value* Dict::Find(const Value& key) const {
  if (key.is_string()) return Find(key.text().bytes());
  for (const auto& [known, value] : entries_) {
    if (Equal(known, key)) return &value;
  }
  return nullptr;
}

const Value* Dict::Find(std::string_view key) const {
  const auto it = text_keys_.find(ToAbsl(key));
  return it == text_keys_.end() ? nullptr : &entries_[it->second].second;
}

Value::Value(Dict dict)
    : data_(std::make_shared<const Dict>(std::move(dict))) {}

int Value::depth() const {
  if (is_sequence()) return std::get<Sequence>(data_).depth;
  return is_dict() ? dict().depth() : 0;
}

int64_t Value::weight() const {
  if (is_string()) return kNodeWeight + static_cast<int64_t>(text().size());
  if (is_sequence()) return std::get<Sequence>(data_).weight;
  return is_dict() ? Sum(dict().weight(), kNodeWeight) : kNodeWeight;
}

bool Value::Truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_float()) return as_float() != 0;
  if (is_number()) return as_int() != 0;
  if (is_string()) return !text().empty();
  if (is_sequence()) return !items().empty();
  if (is_dict()) return dict().size() > 0;
  return true;
}

std::string_view Value::TypeName() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_string()) return "str";
  if (is_tuple()) return "tuple";
  if (is_sequence()) return "list";
  if (is_dict()) return "dict";
  if (is_namespace()) return "Namespace";
  if (is_loop()) return "LoopContext";
  return "function";
}

int64_t ComparisonWeight(const Value& a, const Value& b) {
  // Strings of different sizes are unequal at a glance, but have an order.
  return std::min(a.weight(), b.weight());
}

bool Equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (!a.is_float() && !b.is_float()) return a.as_int() == b.as_int();
    return a.as_float() == b.as_float();
  }
  if (a.is_string()) {
    return b.is_string() && a.text().bytes() == b.text().bytes();
  }
  if (a.is_none()) return b.is_none();
  if (a.is_undefined()) return b.is_undefined();
  if (a.is_sequence()) {
    return b.is_sequence() && a.is_tuple() == b.is_tuple() &&
           EqualLists(a.items(), b.items());
  }
  if (a.is_dict()) return b.is_dict() && EqualDicts(a.dict(), b.dict());
  if (a.is_namespace()) {
    return b.is_namespace() && &a.name_space() == &b.name_space();
  }
  if (a.is_callable()) {
    return b.is_callable() && &a.callable() == &b.callable();
  }
  return a.is_loop() && b.is_loop() && &a.loop() == &b.loop();
}

absl::StatusOr<bool> Less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (!a.is_float() && !b.is_float()) return a.as_int() < b.as_int();
    return a.as_float() < b.as_float();
  }
  if (a.is_string() && b.is_string()) {
    return a.text().bytes() < b.text().bytes();
  }
  if (a.is_sequence() && b.is_sequence() && a.is_tuple() == b.is_tuple()) {
    return LessLists(a.items(), b.items());
  }
  return TypeError(StrCat("values of type ", a.TypeName(), " and ",
                          b.TypeName(), " have no order"));
}

std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const double magnitude = std::fabs(value);
  const bool fixed = value == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  const auto [end, error] = std::to_chars(
      buffer, buffer + sizeof buffer, value,
      fixed ? std::chars_format::fixed : std::chars_format::scientific);
  std::string out(buffer, end);
  if (fixed && out.find('.') == std::string::npos) out += ".0";
  return out;
}

std::string Repr(const Value& value) {
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.as_bool() ? "True" : "False";
  if (value.is_int()) return StrCat(value.as_int());
  if (value.is_float()) return FloatText(value.as_float());
  if (value.is_string()) return QuotedText(value.text().bytes());
  if (value.is_sequence()) return ReprList(value.items(), value.is_tuple());
  if (value.is_dict()) return ReprDict(value.dict());
  return StrCat("<", value.TypeName(), ">");
}

Text ToText(const Value& value) {
  if (value.is_string()) return value.text();
  if (value.is_undefined()) return Text();
  return Text(Repr(value), Origin::kValue);
}

absl::StatusOr<std::string> ToJson(const Value& value, const JsonStyle& style) {
  JsonWriter writer(style);
  CARAVAN_RETURN_IF_ERROR(writer.Write(value, /*depth=*/0));
  return writer.Take();
}

}  // namespace caravan::jinja
