// `value | name`.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/unicode_class.h"
#include "common/text/utf8.h"
#include "services/tokenizer/jinja/builtins.h"

namespace caravan::jinja {
namespace {

using ValueOr = absl::StatusOr<Value>;
using Filter =
    std::function<ValueOr(Interpreter&, const Value&, const Arguments&)>;
using Table = std::map<std::string_view, Filter>;
using Bound = std::vector<const Value*>;

absl::StatusOr<int64_t> IntegerOr(const Value* value, int64_t otherwise,
                                  std::string_view what) {
  if (value == nullptr || value->is_none()) return otherwise;
  if (!value->is_number() || value->is_float()) {
    return TemplateError(
        StrCat(what, " must be an integer; got ", value->TypeName()));
  }
  return value->as_int();
}

bool TruthyOr(const Value* value, bool otherwise) {
  return value == nullptr ? otherwise : value->Truthy();
}

Text TextOr(const Value* value, std::string_view otherwise) {
  return value == nullptr ? Text(otherwise, Origin::kTemplate) : ToText(*value);
}

// --- Of one value ----------------------------------------------------------

ValueOr Trim(Interpreter&, const Value& value, const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const Bound bound,
                           Bind("trim", arguments, {"chars"}));
  const Text characters = TextOr(bound[0], "");
  return Value(ToText(value).Strip(true, true, characters.bytes()));
}

// A filter of what the value is shown as.
Filter OfText(ValueOr (*filter)(Interpreter&, const Value&, const Arguments&)) {
  return [filter](Interpreter& interpreter, const Value& value,
                  const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(Text text, interpreter.Show(value));
    CARAVAN_RETURN_IF_ERROR(interpreter.SpendBytes(
        static_cast<int64_t>(text.size()) * kCharacterWork));
    return filter(interpreter, Value(std::move(text)), arguments);
  };
}

// A filter that is a method of strings.
Filter StringMethod(std::string_view name) {
  return [name](Interpreter& interpreter, const Value& value,
                const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(Text text, interpreter.Show(value));
    return interpreter.Call(Method(Value(std::move(text)), name), arguments);
  };
}

ValueOr Default(Interpreter&, const Value& value, const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("default", arguments, {"default_value", "boolean"}));
  const bool missing =
      value.is_undefined() || (TruthyOr(bound[1], false) && !value.Truthy());
  if (!missing) return value;
  return bound[0] == nullptr ? Value(Text()) : *bound[0];
}

ValueOr Length(Interpreter& interpreter, const Value& value,
               const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("length", arguments, {}).status());
  if (value.is_undefined()) return Value(int64_t{0});
  if (value.is_string()) {
    CARAVAN_RETURN_IF_ERROR(interpreter.SpendBytes(value.weight()));
    return Value(static_cast<int64_t>(value.text().CountCharacters()));
  }
  if (value.is_sequence()) {
    return Value(static_cast<int64_t>(value.items().size()));
  }
  if (value.is_dict()) return Value(static_cast<int64_t>(value.dict().size()));
  return TemplateError(StrCat("a ", value.TypeName(), " has no length"));
}

ValueOr ToJsonFilter(Interpreter& interpreter, const Value& value,
                     const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("tojson", arguments,
           {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ensure_ascii = TruthyOr(bound[0], false);
  style.sort_keys = TruthyOr(bound[3], false);
  if (bound[1] != nullptr && !bound[1]->is_none()) {
    CARAVAN_ASSIGN_OR_RETURN(const int64_t indent,
                             IntegerOr(bound[1], 0, "indent"));
    if (indent > 64) return TemplateError("indent must be at most 64");
    style.indent = static_cast<int>(std::max<int64_t>(0, indent));
    style.item_separator = std::string(1, ',');
  }
  if (bound[2] != nullptr && !bound[2]->is_none()) {
    CARAVAN_ASSIGN_OR_RETURN(const List separators,
                             interpreter.Iterate(*bound[2]));
    if (separators.size() != 2) return TemplateError("separators must be two");
    style.item_separator = ToText(separators[0]).bytes();
    style.key_separator = ToText(separators[1]).bytes();
  }
  style.max_bytes = interpreter.limits().max_output_bytes;
  CARAVAN_RETURN_IF_ERROR(
      interpreter.SpendBytes(value.weight() * kCharacterWork));
  CARAVAN_ASSIGN_OR_RETURN(const std::string json, ToJson(value, style));
  return Value::String(json);
}

ValueOr ToStringFilter(Interpreter&, const Value& value,
                       const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("string", arguments, {}).status());
  return Value(ToText(value));
}

ValueOr Abs(Interpreter& interpreter, const Value& value,
            const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("abs", arguments, {}).status());
  if (!value.is_number()) return TemplateError("abs needs a number");
  if (value.is_float()) return Value(std::fabs(value.as_float()));
  if (value.as_int() >= 0) return Value(value.as_int());
  return Arithmetic(interpreter, "-", Value(int64_t{0}), value);
}

// The number that a text begins and ends with, without white space around.
template <typename Number>
std::optional<Number> ParseNumber(const Value& value) {
  const Text stripped = value.text().Strip(true, true);
  std::string_view bytes = stripped.bytes();
  if (bytes.starts_with('+')) bytes.remove_prefix(1);
  Number number{};
  const auto [end, error] =
      std::from_chars(bytes.data(), bytes.data() + bytes.size(), number);
  if (error != std::errc() || end != bytes.data() + bytes.size()) {
    return std::nullopt;
  }
  return number;
}

std::optional<int64_t> Truncated(double value) {
  if (!(std::fabs(value) < 9.2e18)) return std::nullopt;
  return static_cast<int64_t>(value);
}

absl::Status RefuseUndefined(const Value& value) {
  if (!value.is_undefined()) return absl::OkStatus();
  return TemplateError(StrCat("'", value.undefined_name(), "' is undefined"));
}

ValueOr ToInt(Interpreter&, const Value& value, const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const Bound bound,
                           Bind("int", arguments, {"default", "base"}));
  CARAVAN_ASSIGN_OR_RETURN(const int64_t base, IntegerOr(bound[1], 10, "base"));
  if (base != 10) return TemplateError("int knows only base 10");
  CARAVAN_RETURN_IF_ERROR(RefuseUndefined(value));
  std::optional<int64_t> number;
  if (value.is_float()) {
    number = Truncated(value.as_float());
  } else if (value.is_number()) {
    number = value.as_int();
  } else if (value.is_string()) {
    number = ParseNumber<int64_t>(value);
    if (!number) {
      const std::optional<double> real = ParseNumber<double>(value);
      if (real) number = Truncated(*real);
    }
  }
  if (number) return Value(*number);
  return bound[0] == nullptr ? Value(int64_t{0}) : *bound[0];
}

ValueOr ToFloat(Interpreter&, const Value& value, const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const Bound bound,
                           Bind("float", arguments, {"default"}));
  CARAVAN_RETURN_IF_ERROR(RefuseUndefined(value));
  if (value.is_number()) return Value(value.as_float());
  if (value.is_string()) {
    const std::optional<double> number = ParseNumber<double>(value);
    if (number) return Value(*number);
  }
  return bound[0] == nullptr ? Value(0.0) : *bound[0];
}

// Python's round(): decimal digits after (or before) the point, the exact
// halves to even.
double RoundFloat(double value, int precision) {
  if (!std::isfinite(value) || value == 0) return value;
  if (precision < 0) {
    const double scale = std::pow(10.0, -precision);
    return std::nearbyint(value / scale) * scale;
  }
  char buffer[400];
  const int size =
      std::snprintf(buffer, sizeof buffer, "%.*f", precision, value);
  double rounded = value;
  std::from_chars(buffer, buffer + size, rounded);
  return rounded;
}

int64_t RoundInteger(int64_t value, int precision) {
  int64_t scale = 1;
  for (int i = 0; i < -precision; ++i) scale *= 10;
  const int64_t rest = (value % scale + scale) % scale;
  if (value < INT64_MIN + rest) return value;
  const int64_t down = value - rest;
  const bool up =
      rest * 2 > scale || (rest * 2 == scale && (down / scale) % 2 != 0);
  return up && down <= INT64_MAX - scale ? down + scale : down;
}

ValueOr Round(Interpreter&, const Value& value, const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const Bound bound,
                           Bind("round", arguments, {"precision", "method"}));
  if (!value.is_number()) return TemplateError("round needs a number");
  CARAVAN_ASSIGN_OR_RETURN(const int64_t wanted,
                           IntegerOr(bound[0], 0, "precision"));
  if (wanted < -15 || wanted > 15) {
    return TemplateError("precision must be in [-15, 15]");
  }
  const int precision = static_cast<int>(wanted);
  const std::string method = TextOr(bound[1], "common").bytes();
  if (method == "common") {
    return value.is_float() ? Value(RoundFloat(value.as_float(), precision))
                            : Value(RoundInteger(value.as_int(), precision));
  }
  if (method != "ceil" && method != "floor") {
    return TemplateError("round knows the methods common, ceil and floor");
  }
  const double scale = std::pow(10.0, precision);
  const double scaled = value.as_float() * scale;
  const double whole =
      method == "ceil" ? std::ceil(scaled) : std::floor(scaled);
  return Value(whole / scale + 0.0);  // Python's are integers: no -0
}

ValueOr FormatFilter(Interpreter& interpreter, const Value& value,
                     const Arguments& arguments) {
  if (!arguments.named.empty()) {
    return TemplateError("format takes no named arguments");
  }
  return FormatPercent(interpreter, ToText(value), arguments.positional,
                       /*mapping=*/nullptr);
}

// The `width` of indent: a text, or that many spaces.
absl::StatusOr<Text> IndentOf(const Value* width) {
  if (width != nullptr && width->is_string()) return width->text();
  CARAVAN_ASSIGN_OR_RETURN(const int64_t count, IntegerOr(width, 4, "width"));
  if (count > 1000) return TemplateError("width must be at most 1000");
  return Text(std::string(std::max<int64_t>(0, count), ' '), Origin::kTemplate);
}

ValueOr Indent(Interpreter& interpreter, const Value& value,
               const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("indent", arguments, {"width", "first", "blank"}));
  if (!value.is_string()) {
    return TemplateError(
        StrCat("indent needs a string; got ", value.TypeName()));
  }
  CARAVAN_ASSIGN_OR_RETURN(const Text indent, IndentOf(bound[0]));
  CARAVAN_RETURN_IF_ERROR(
      interpreter.SpendBytes(value.weight() * kCharacterWork));
  Text text = value.text();
  text.Append("\n", Origin::kTemplate);  // a line end at the end is a line
  CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(
      static_cast<int64_t>(CountLines(text) * (indent.size() + sizeof(Text)))));
  const std::vector<Text> lines = LinesOf(text, /*keep_ends=*/false);
  const bool blank = TruthyOr(bound[2], false);
  Text out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.Append("\n", Origin::kTemplate);
    const bool wanted =
        i == 0 ? TruthyOr(bound[1], false) : blank || !lines[i].empty();
    if (wanted) out.Append(indent);
    out.Append(lines[i]);
  }
  return Value(std::move(out));
}

ValueOr Truncate(Interpreter& interpreter, const Value& value,
                 const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("truncate", arguments, {"length", "killwords", "end", "leeway"}));
  CARAVAN_ASSIGN_OR_RETURN(const int64_t length,
                           IntegerOr(bound[0], 255, "length"));
  CARAVAN_ASSIGN_OR_RETURN(const int64_t leeway,
                           IntegerOr(bound[3], 5, "leeway"));
  const Text end = TextOr(bound[2], "...");
  const auto end_count = static_cast<int64_t>(end.CountCharacters());
  if (length < end_count || leeway < 0 || length > (1 << 30)) {
    return TemplateError("length is too small for the end, or too large");
  }
  if (value.is_undefined()) return value;
  const auto fits = [&](size_t size) {
    return static_cast<int64_t>(size) <= length + leeway;
  };
  if (value.is_sequence() && fits(value.items().size())) return value;
  if (value.is_dict() && fits(value.dict().size())) return value;
  if (!value.is_string()) {
    return TemplateError(
        StrCat("truncate needs a string; got ", value.TypeName()));
  }
  CARAVAN_RETURN_IF_ERROR(
      interpreter.SpendBytes(value.weight() * kCharacterWork));
  const Text& text = value.text();
  const std::vector<size_t> offsets = text.CharacterOffsets();
  if (fits(offsets.size() - 1)) return value;
  Text kept = text.Slice(0, offsets[length - end_count]);
  if (!TruthyOr(bound[1], false)) {
    const size_t space = kept.bytes().rfind(' ');
    if (space != std::string::npos) kept = kept.Slice(0, space);
  }
  kept.Append(end);
  return Value(std::move(kept));
}

Text TitleWord(const Text& word) {
  if (word.empty()) return word;
  const size_t first = text::Utf8Size(word.bytes().front());
  Text out = ToCase(word.Slice(0, first), LetterCase::kUpper);
  out.Append(
      ToCase(word.Slice(first, word.size() - first), LetterCase::kLower));
  return out;
}

// Words begin after white space, hyphens and opening brackets.
ValueOr Title(Interpreter& interpreter, const Value& value,
              const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("title", arguments, {}).status());
  CARAVAN_RETURN_IF_ERROR(
      interpreter.SpendBytes(value.weight() * 4 * kCharacterWork));
  const Text& text = value.text();
  const std::string_view bytes = text.bytes();
  const auto separates = [&](size_t i) {
    return std::string_view("-({[<").find(bytes[i]) != std::string_view::npos ||
           IsSpace(text::DecodeUtf8(bytes.substr(i)).code_point);
  };
  Text out;
  size_t begin = 0;
  for (size_t i = 0; i < bytes.size();) {
    const size_t size = text::Utf8Size(bytes[i]);
    if (separates(i)) {
      out.Append(TitleWord(text.Slice(begin, i - begin)));
      out.Append(text.Slice(i, size));
      begin = i + size;
    }
    i += size;
  }
  out.Append(TitleWord(text.Slice(begin, bytes.size() - begin)));
  return Value(std::move(out));
}

ValueOr Escape(Interpreter& interpreter, const Value& value,
               const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("escape", arguments, {}).status());
  Text text = ToText(value);
  CARAVAN_RETURN_IF_ERROR(
      interpreter.Allocate(static_cast<int64_t>(text.size()) * 5));
  CARAVAN_RETURN_IF_ERROR(interpreter.Spend(static_cast<int64_t>(
      text.CountOf("&") + text.CountOf("<") + text.CountOf(">") +
      text.CountOf("'") + text.CountOf("\""))));
  for (const auto& [from, to] :
       std::initializer_list<std::pair<const char*, const char*>>{
           {"&", "&amp;"},
           {"<", "&lt;"},
           {">", "&gt;"},
           {"'", "&#39;"},
           {"\"", "&#34;"}}) {
    text = text.Replace(from, Text(to, Origin::kValue), -1);
  }
  return Value(std::move(text));
}

// Runs of letters, digits and underscores.
ValueOr WordCount(Interpreter&, const Value& value,
                  const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("wordcount", arguments, {}).status());
  const std::string_view bytes = value.text().bytes();
  int64_t count = 0;
  bool in_word = false;
  for (size_t i = 0; i < bytes.size(); i += text::Utf8Size(bytes[i])) {
    const text::CharClass c =
        text::ClassOf(text::DecodeUtf8(bytes.substr(i)).code_point);
    const bool word = bytes[i] == '_' || c == text::CharClass::kLetter ||
                      c == text::CharClass::kNumber;
    if (word && !in_word) ++count;
    in_word = word;
  }
  return Value(count);
}

// Nothing is escaped by itself, so that only a string is made.
ValueOr Safe(Interpreter&, const Value& value, const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("safe", arguments, {}).status());
  return value;
}

ValueOr Attr(Interpreter& interpreter, const Value& value,
             const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const Bound bound,
                           Bind("attr", arguments, {"name"}));
  if (bound[0] == nullptr || !bound[0]->is_string()) {
    return TemplateError("attr needs a name");
  }
  const std::string& name = bound[0]->text().bytes();
  // As Jinja: attributes only, not the members of a dict.
  if (value.is_dict()) return Method(value, name);
  return interpreter.Attribute(value, name);
}

// --- Of several values -----------------------------------------------------

ValueOr First(Interpreter& interpreter, const Value& value,
              const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("first", arguments, {}).status());
  CARAVAN_ASSIGN_OR_RETURN(const List items, interpreter.Iterate(value));
  if (items.empty()) return Value::MakeUndefined("first of an empty list");
  return items.front();
}

ValueOr Last(Interpreter& interpreter, const Value& value,
             const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("last", arguments, {}).status());
  CARAVAN_ASSIGN_OR_RETURN(const List items, interpreter.Iterate(value));
  if (items.empty()) return Value::MakeUndefined("last of an empty list");
  return items.back();
}

ValueOr ToList(Interpreter& interpreter, const Value& value,
               const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("list", arguments, {}).status());
  CARAVAN_ASSIGN_OR_RETURN(List items, interpreter.Iterate(value));
  return Value::MakeList(std::move(items));
}

ValueOr Items(Interpreter& interpreter, const Value& value,
              const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("items", arguments, {}).status());
  if (value.is_undefined()) return Value::MakeList({});
  if (!value.is_dict()) {
    return TemplateError(
        StrCat("items needs a mapping; got ", value.TypeName()));
  }
  return interpreter.Call(Method(value, "items"), {});
}

std::string Quoted(std::string_view bytes, bool in_query) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~";
  std::string out;
  for (const char c : bytes) {
    if (kPlain.find(c) != std::string_view::npos || (c == '/' && !in_query)) {
      out += c;
    } else if (c == ' ' && in_query) {
      out += '+';
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    }
  }
  return out;
}

absl::StatusOr<std::string> UrlQuoted(Interpreter& interpreter,
                                      const Value& value, bool in_query) {
  CARAVAN_ASSIGN_OR_RETURN(const Text text, interpreter.Show(value));
  CARAVAN_RETURN_IF_ERROR(
      interpreter.Allocate(static_cast<int64_t>(text.size()) * 8));
  return Quoted(text.bytes(), in_query);
}

// A string, or pairs of name and value.
ValueOr UrlEncode(Interpreter& interpreter, const Value& value,
                  const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("urlencode", arguments, {}).status());
  if (!value.is_sequence() && !value.is_dict() && !value.is_undefined()) {
    CARAVAN_ASSIGN_OR_RETURN(const std::string out,
                             UrlQuoted(interpreter, value, /*in_query=*/false));
    return Value::String(out);
  }
  Value pairs = value;
  if (value.is_dict()) {
    CARAVAN_ASSIGN_OR_RETURN(pairs, Items(interpreter, value, {}));
  }
  CARAVAN_ASSIGN_OR_RETURN(const List items, interpreter.Iterate(pairs));
  std::string out;
  for (const Value& item : items) {
    CARAVAN_ASSIGN_OR_RETURN(const List pair, interpreter.Iterate(item));
    if (pair.size() != 2) return TemplateError("urlencode needs pairs");
    CARAVAN_ASSIGN_OR_RETURN(const std::string name,
                             UrlQuoted(interpreter, pair[0], true));
    CARAVAN_ASSIGN_OR_RETURN(const std::string content,
                             UrlQuoted(interpreter, pair[1], true));
    StrAppend(&out, out.empty() ? "" : "&", name, "=", content);
  }
  return Value::String(out);
}

// `a.b.0` of an item, as the attribute= arguments have it.
ValueOr Path(Interpreter& interpreter, const Value& item,
             const Value& attribute) {
  if (!attribute.is_string()) return interpreter.Item(item, attribute);
  Value value = item;
  for (const Text& part : attribute.text().Split(".", -1)) {
    int64_t index = 0;
    const char* const begin = part.bytes().data();
    const char* const end = begin + part.size();
    const auto parsed = std::from_chars(begin, end, index);
    const bool is_index = parsed.ec == std::errc() && parsed.ptr == end;
    CARAVAN_ASSIGN_OR_RETURN(
        value, interpreter.Item(value, is_index ? Value(index) : Value(part)));
  }
  return value;
}

// Each item's attribute, or the items themselves.
absl::StatusOr<List> KeysOf(Interpreter& interpreter, const List& items,
                            const Value* attribute) {
  if (attribute == nullptr || attribute->is_none()) return items;
  List keys;
  for (const Value& item : items) {
    CARAVAN_RETURN_IF_ERROR(interpreter.Spend(1));
    CARAVAN_RETURN_IF_ERROR(
        interpreter.SpendBytes(attribute->weight() * kCharacterWork));
    CARAVAN_ASSIGN_OR_RETURN(Value key, Path(interpreter, item, *attribute));
    keys.push_back(std::move(key));
  }
  return keys;
}

// What comparison goes by: strings without their case, unless it counts.
ValueOr Folded(Interpreter& interpreter, const Value& key,
               bool case_sensitive) {
  if (case_sensitive || !key.is_string()) return key;
  CARAVAN_RETURN_IF_ERROR(
      interpreter.SpendBytes(key.weight() * 4 * kCharacterWork));
  return Value(ToCase(key.text(), LetterCase::kLower));
}

absl::StatusOr<List> AllFolded(Interpreter& interpreter, List keys,
                               bool case_sensitive) {
  for (Value& key : keys) {
    CARAVAN_ASSIGN_OR_RETURN(key, Folded(interpreter, key, case_sensitive));
  }
  return keys;
}

ValueOr Join(Interpreter& interpreter, const Value& value,
             const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const Bound bound,
                           Bind("join", arguments, {"d", "attribute"}));
  CARAVAN_ASSIGN_OR_RETURN(const List items, interpreter.Iterate(value));
  CARAVAN_ASSIGN_OR_RETURN(const List parts,
                           KeysOf(interpreter, items, bound[1]));
  const Text separator = TextOr(bound[0], "");
  Text out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out.Append(separator);
    CARAVAN_ASSIGN_OR_RETURN(const Text part, interpreter.Show(parts[i]));
    CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(
        static_cast<int64_t>(part.size() + separator.size())));
    out.Append(part);
  }
  return Value(std::move(out));
}

ValueOr Reverse(Interpreter& interpreter, const Value& value,
                const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("reverse", arguments, {}).status());
  CARAVAN_ASSIGN_OR_RETURN(List items, interpreter.Iterate(value));
  std::reverse(items.begin(), items.end());
  if (!value.is_string()) return Value::MakeList(std::move(items));
  Text out;
  for (const Value& item : items) out.Append(item.text());
  return Value(std::move(out));
}

// Order of `keys` as indices; fails where two have no order.
absl::StatusOr<std::vector<size_t>> SortedOrder(Interpreter& interpreter,
                                                const List& keys) {
  std::vector<size_t> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  absl::Status problem;
  const auto before = [&](size_t a, size_t b) {
    if (!problem.ok()) return false;
    const absl::StatusOr<bool> less = interpreter.Before(keys[a], keys[b]);
    if (!less.ok()) problem = less.status();
    return less.ok() && *less;
  };
  CARAVAN_RETURN_IF_ERROR(
      interpreter.Spend(4 * static_cast<int64_t>(keys.size())));
  // Keys of mixed kinds are not a strict weak order; refuse them first.
  for (size_t i = 1; i < keys.size(); ++i) before(i - 1, i);
  if (!problem.ok()) return problem;
  std::stable_sort(order.begin(), order.end(), before);
  if (!problem.ok()) return problem;
  return order;
}

// What sort goes by: the items, or for each a list of the attributes that are
// named between commas.
absl::StatusOr<List> SortKeys(Interpreter& interpreter, const List& items,
                              const Value* attributes, bool case_sensitive) {
  if (attributes == nullptr || !attributes->is_string()) {
    CARAVAN_ASSIGN_OR_RETURN(List keys, KeysOf(interpreter, items, attributes));
    return AllFolded(interpreter, std::move(keys), case_sensitive);
  }
  std::vector<List> rows(items.size());
  for (const Text& name : attributes->text().Split(",", -1)) {
    const Value attribute(name);
    CARAVAN_ASSIGN_OR_RETURN(List keys, KeysOf(interpreter, items, &attribute));
    CARAVAN_ASSIGN_OR_RETURN(
        keys, AllFolded(interpreter, std::move(keys), case_sensitive));
    for (size_t i = 0; i < items.size(); ++i) {
      rows[i].push_back(std::move(keys[i]));
    }
  }
  List keys;
  for (List& row : rows) keys.push_back(Value::MakeList(std::move(row)));
  return keys;
}

ValueOr Sort(Interpreter& interpreter, const Value& value,
             const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("sort", arguments, {"reverse", "case_sensitive", "attribute"}));
  CARAVAN_ASSIGN_OR_RETURN(List items, interpreter.Iterate(value));
  CARAVAN_ASSIGN_OR_RETURN(List keys, SortKeys(interpreter, items, bound[2],
                                               TruthyOr(bound[1], false)));
  const bool reverse = TruthyOr(bound[0], false);
  if (reverse) {  // equal ones keep their order, as in Python
    std::reverse(items.begin(), items.end());
    std::reverse(keys.begin(), keys.end());
  }
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<size_t> order,
                           SortedOrder(interpreter, keys));
  List sorted;
  for (const size_t i : order) sorted.push_back(items[i]);
  if (reverse) std::reverse(sorted.begin(), sorted.end());
  return Value::MakeList(std::move(sorted));
}

ValueOr DictSort(Interpreter& interpreter, const Value& value,
                 const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("dictsort", arguments, {"case_sensitive", "by", "reverse"}));
  if (!value.is_dict()) return TemplateError("dictsort needs a dict");
  const Text by = TextOr(bound[1], "key");
  if (by.bytes() != "key" && by.bytes() != "value") {
    return TemplateError("dictsort goes by key or value");
  }
  CARAVAN_ASSIGN_OR_RETURN(const Value pairs, Items(interpreter, value, {}));
  List keys;
  for (const Value& pair : pairs.items()) {
    keys.push_back(pair.items()[by.bytes() == "key" ? 0 : 1]);
  }
  CARAVAN_ASSIGN_OR_RETURN(
      keys, AllFolded(interpreter, std::move(keys), TruthyOr(bound[0], false)));
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<size_t> order,
                           SortedOrder(interpreter, keys));
  List sorted;
  for (const size_t i : order) sorted.push_back(pairs.items()[i]);
  if (TruthyOr(bound[2], false)) std::reverse(sorted.begin(), sorted.end());
  return Value::MakeList(std::move(sorted));
}

ValueOr Unique(Interpreter& interpreter, const Value& value,
               const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("unique", arguments, {"case_sensitive", "attribute"}));
  CARAVAN_ASSIGN_OR_RETURN(const List items, interpreter.Iterate(value));
  CARAVAN_ASSIGN_OR_RETURN(const List keys,
                           KeysOf(interpreter, items, bound[1]));
  List seen;
  List out;
  for (size_t i = 0; i < items.size(); ++i) {
    CARAVAN_ASSIGN_OR_RETURN(
        const Value key,
        Folded(interpreter, keys[i], TruthyOr(bound[0], false)));
    if (key.is_dict() || (key.is_sequence() && !key.is_tuple())) {
      return TemplateError(StrCat("unique cannot take a ", key.TypeName()));
    }
    CARAVAN_ASSIGN_OR_RETURN(const bool known,
                             interpreter.Contains(Value::MakeList(seen), key));
    if (known) continue;
    seen.push_back(key);
    out.push_back(items[i]);
  }
  return Value::MakeList(std::move(out));
}

Filter Extreme(bool greatest) {
  return [greatest](Interpreter& interpreter, const Value& value,
                    const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(
        const Bound bound,
        Bind("min", arguments, {"case_sensitive", "attribute"}));
    CARAVAN_ASSIGN_OR_RETURN(const List items, interpreter.Iterate(value));
    if (items.empty()) return Value::MakeUndefined("min of an empty list");
    CARAVAN_ASSIGN_OR_RETURN(List keys, KeysOf(interpreter, items, bound[1]));
    CARAVAN_ASSIGN_OR_RETURN(keys, AllFolded(interpreter, std::move(keys),
                                             TruthyOr(bound[0], false)));
    size_t best = 0;
    for (size_t i = 1; i < keys.size(); ++i) {
      CARAVAN_ASSIGN_OR_RETURN(const bool better,
                               greatest
                                   ? interpreter.Before(keys[best], keys[i])
                                   : interpreter.Before(keys[i], keys[best]));
      if (better) best = i;
    }
    return items[best];
  };
}

ValueOr Sum(Interpreter& interpreter, const Value& value,
            const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const Bound bound,
                           Bind("sum", arguments, {"attribute", "start"}));
  CARAVAN_ASSIGN_OR_RETURN(const List items, interpreter.Iterate(value));
  CARAVAN_ASSIGN_OR_RETURN(const List keys,
                           KeysOf(interpreter, items, bound[0]));
  Value sum = bound[1] == nullptr ? Value(int64_t{0}) : *bound[1];
  for (const Value& key : keys) {
    CARAVAN_ASSIGN_OR_RETURN(sum, Arithmetic(interpreter, "+", sum, key));
  }
  return sum;
}

ValueOr Batch(Interpreter& interpreter, const Value& value,
              const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Bound bound, Bind("batch", arguments, {"linecount", "fill_with"}));
  CARAVAN_ASSIGN_OR_RETURN(const int64_t size,
                           IntegerOr(bound[0], 0, "linecount"));
  if (size < 1 || size > 100'000) {
    return TemplateError("linecount must be in [1, 100000]");
  }
  CARAVAN_ASSIGN_OR_RETURN(const List items, interpreter.Iterate(value));
  CARAVAN_RETURN_IF_ERROR(
      interpreter.Allocate(static_cast<int64_t>(items.size() * sizeof(Value)) +
                           (bound[1] == nullptr ? 0 : size * sizeof(Value))));
  List batches;
  for (size_t begin = 0; begin < items.size(); begin += size) {
    const size_t end =
        std::min(items.size(), begin + static_cast<size_t>(size));
    List batch(items.begin() + static_cast<int64_t>(begin),
               items.begin() + static_cast<int64_t>(end));
    if (bound[1] != nullptr) batch.resize(size, *bound[1]);
    batches.push_back(Value::MakeList(std::move(batch)));
  }
  return Value::MakeList(std::move(batches));
}

ValueOr SliceFilter(Interpreter& interpreter, const Value& value,
                    const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const Bound bound,
                           Bind("slice", arguments, {"slices", "fill_with"}));
  CARAVAN_ASSIGN_OR_RETURN(const int64_t slices,
                           IntegerOr(bound[0], 0, "slices"));
  if (slices < 1 || slices > 10'000) {
    return TemplateError("slices must be in [1, 10000]");
  }
  CARAVAN_ASSIGN_OR_RETURN(const List items, interpreter.Iterate(value));
  const auto count = static_cast<int64_t>(items.size());
  const int64_t longer = count % slices;
  CARAVAN_RETURN_IF_ERROR(interpreter.Spend(slices));
  List columns;
  int64_t begin = 0;
  for (int64_t i = 0; i < slices; ++i) {
    const int64_t size = count / slices + (i < longer ? 1 : 0);
    List column(items.begin() + begin, items.begin() + begin + size);
    begin += size;
    if (bound[1] != nullptr && !bound[1]->is_none() && i >= longer) {
      column.push_back(*bound[1]);
    }
    columns.push_back(Value::MakeList(std::move(column)));
  }
  return Value::MakeList(std::move(columns));
}

ValueOr GroupBy(Interpreter& interpreter, const Value& value,
                const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("groupby", arguments, {"attribute", "default", "case_sensitive"}));
  if (bound[0] == nullptr) return TemplateError("groupby needs an attribute");
  CARAVAN_ASSIGN_OR_RETURN(const List items, interpreter.Iterate(value));
  CARAVAN_ASSIGN_OR_RETURN(List keys, KeysOf(interpreter, items, bound[0]));
  for (Value& key : keys) {
    if (key.is_undefined() && bound[1] != nullptr) key = *bound[1];
  }
  CARAVAN_ASSIGN_OR_RETURN(
      const List folded,
      AllFolded(interpreter, keys, TruthyOr(bound[2], false)));
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<size_t> order,
                           SortedOrder(interpreter, folded));
  List groups;
  for (size_t i = 0; i < order.size();) {
    List members;
    const Value& key = folded[order[i]];
    const Value shown = keys[order[i]];
    while (i < order.size()) {
      CARAVAN_ASSIGN_OR_RETURN(const bool same,
                               interpreter.Same(folded[order[i]], key));
      if (!same) break;
      members.push_back(items[order[i++]]);
    }
    groups.push_back(
        Value::MakeTuple({shown, Value::MakeList(std::move(members))}));
  }
  return Value::MakeList(std::move(groups));
}

// What map, select and reject go through: nothing of a value that is false,
// none included.
absl::StatusOr<List> ItemsOf(Interpreter& interpreter, const Value& value) {
  if (!value.Truthy()) return List();
  return interpreter.Iterate(value);
}

// The name of a filter or test that is given as a value.
absl::StatusOr<std::string> NameOf(Interpreter& interpreter,
                                   const Value& value) {
  CARAVAN_ASSIGN_OR_RETURN(const Text name, interpreter.Show(value));
  return name.bytes();
}

// map(attribute=...), or map(filter, its arguments).
ValueOr Map(Interpreter& interpreter, const Value& value,
            const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const List items, ItemsOf(interpreter, value));
  List out;
  if (arguments.positional.empty()) {
    CARAVAN_ASSIGN_OR_RETURN(const Bound bound,
                             Bind("map", arguments, {"attribute", "default"}));
    if (bound[0] == nullptr) return TemplateError("map needs a filter");
    CARAVAN_ASSIGN_OR_RETURN(out, KeysOf(interpreter, items, bound[0]));
    for (Value& item : out) {
      if (item.is_undefined() && bound[1] != nullptr) item = *bound[1];
    }
    return Value::MakeList(std::move(out));
  }
  Arguments rest = arguments;
  CARAVAN_ASSIGN_OR_RETURN(const std::string name,
                           NameOf(interpreter, rest.positional.front()));
  rest.positional.erase(rest.positional.begin());
  for (const Value& item : items) {
    CARAVAN_RETURN_IF_ERROR(interpreter.Spend(1));
    CARAVAN_ASSIGN_OR_RETURN(Value mapped,
                             ApplyFilter(interpreter, name, item, rest));
    out.push_back(std::move(mapped));
  }
  return Value::MakeList(std::move(out));
}

// select, reject, selectattr, rejectattr.
Filter Selection(bool wanted, bool by_attribute) {
  return [=](Interpreter& interpreter, const Value& value,
             const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(const List items, ItemsOf(interpreter, value));
    Arguments rest = arguments;
    List keys = items;
    if (by_attribute) {
      if (rest.positional.empty()) {
        return TemplateError("selectattr needs an attribute");
      }
      CARAVAN_ASSIGN_OR_RETURN(
          keys, KeysOf(interpreter, items, &arguments.positional[0]));
      rest.positional.erase(rest.positional.begin());
    }
    std::optional<std::string> test;
    if (!rest.positional.empty()) {
      CARAVAN_ASSIGN_OR_RETURN(test,
                               NameOf(interpreter, rest.positional.front()));
      rest.positional.erase(rest.positional.begin());
    }
    List out;
    for (size_t i = 0; i < items.size(); ++i) {
      CARAVAN_RETURN_IF_ERROR(interpreter.Spend(1));
      bool holds = keys[i].Truthy();
      if (test) {
        CARAVAN_ASSIGN_OR_RETURN(holds,
                                 ApplyTest(interpreter, *test, keys[i], rest));
      }
      if (holds == wanted) out.push_back(items[i]);
    }
    return Value::MakeList(std::move(out));
  };
}

void AddScalarFilters(Table* table) {
  Table& t = *table;
  t["trim"] = OfText(Trim);
  for (const char* const name : {"upper", "lower", "capitalize", "replace"}) {
    t[name] = StringMethod(name);
  }
  t["title"] = OfText(Title);
  t["default"] = t["d"] = Default;
  t["length"] = t["count"] = Length;
  t["tojson"] = ToJsonFilter;
  t["string"] = OfText(ToStringFilter);
  t["abs"] = Abs;
  t["int"] = ToInt;
  t["float"] = ToFloat;
  t["round"] = Round;
  t["format"] = OfText(FormatFilter);
  t["indent"] = Indent;
  t["truncate"] = Truncate;
  t["escape"] = t["e"] = t["forceescape"] = OfText(Escape);
  t["urlencode"] = UrlEncode;
  t["wordcount"] = OfText(WordCount);
  t["safe"] = OfText(Safe);
  t["attr"] = Attr;
  t["center"] = [](Interpreter& interpreter, const Value& value,
                   const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(const Bound bound,
                             Bind("center", arguments, {"width"}));
    const Value width = bound[0] == nullptr ? Value(int64_t{80}) : *bound[0];
    CARAVAN_ASSIGN_OR_RETURN(Text text, interpreter.Show(value));
    return interpreter.Call(Method(Value(std::move(text)), "center"),
                            {{width}, {}});
  };
}

void AddListFilters(Table* table) {
  Table& t = *table;
  t["first"] = First;
  t["last"] = Last;
  t["list"] = ToList;
  t["items"] = Items;
  t["join"] = Join;
  t["reverse"] = Reverse;
  t["sort"] = Sort;
  t["dictsort"] = DictSort;
  t["unique"] = Unique;
  t["min"] = Extreme(/*greatest=*/false);
  t["max"] = Extreme(/*greatest=*/true);
  t["sum"] = Sum;
  t["batch"] = Batch;
  t["slice"] = SliceFilter;
  t["groupby"] = GroupBy;
  t["map"] = Map;
  t["select"] = Selection(/*wanted=*/true, /*by_attribute=*/false);
  t["reject"] = Selection(/*wanted=*/false, /*by_attribute=*/false);
  t["selectattr"] = Selection(/*wanted=*/true, /*by_attribute=*/true);
  t["rejectattr"] = Selection(/*wanted=*/false, /*by_attribute=*/true);
}

const Table& AllFilters() {
  static const auto& kFilters = *[] {
    auto* const table = new Table();
    AddScalarFilters(table);
    AddListFilters(table);
    return table;
  }();
  return kFilters;
}

}  // namespace

bool HasFilter(std::string_view name) { return AllFilters().contains(name); }

ValueOr ApplyFilter(Interpreter& interpreter, std::string_view name,
                    const Value& input, const Arguments& arguments) {
  const auto it = AllFilters().find(name);
  if (it == AllFilters().end()) {
    return TemplateError(StrCat("no filter is called '", name, "'"));
  }
  // A filter may look at all of its arguments.
  int64_t bytes = 0;
  for (const Value& argument : arguments.positional) {
    bytes += argument.weight();
  }
  for (const auto& [key, argument] : arguments.named) {
    bytes += argument.weight();
  }
  CARAVAN_RETURN_IF_ERROR(interpreter.SpendBytes(bytes));
  return it->second(interpreter, input, arguments);
}

}  // namespace caravan::jinja
