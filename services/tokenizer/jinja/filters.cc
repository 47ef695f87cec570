// `value | name`.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "common/status/status_macros.h"
#include "common/strings.h"
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

ValueOr ToInt(Interpreter&, const Value& value, const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const Bound bound,
                           Bind("int", arguments, {"default", "base"}));
  CARAVAN_ASSIGN_OR_RETURN(const int64_t base, IntegerOr(bound[1], 10, "base"));
  if (base != 10) return TemplateError("int knows only base 10");
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
  if (value.is_number()) return Value(value.as_float());
  if (value.is_string()) {
    const std::optional<double> number = ParseNumber<double>(value);
    if (number) return Value(*number);
  }
  return bound[0] == nullptr ? Value(0.0) : *bound[0];
}

ValueOr Round(Interpreter&, const Value& value, const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const Bound bound,
                           Bind("round", arguments, {"precision", "method"}));
  if (!value.is_number()) return TemplateError("round needs a number");
  CARAVAN_ASSIGN_OR_RETURN(const int64_t precision,
                           IntegerOr(bound[0], 0, "precision"));
  if (precision < -15 || precision > 15) {
    return TemplateError("precision must be in [-15, 15]");
  }
  const Text method = TextOr(bound[1], "common");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = value.as_float() * scale;
  if (method.bytes() == "ceil") return Value(std::ceil(scaled) / scale);
  if (method.bytes() == "floor") return Value(std::floor(scaled) / scale);
  if (method.bytes() != "common") return TemplateError("unknown round method");
  return Value(std::nearbyint(scaled) / scale);
}

ValueOr FormatFilter(Interpreter& interpreter, const Value& value,
                     const Arguments& arguments) {
  if (!arguments.named.empty()) {
    return TemplateError("format takes no named arguments");
  }
  return FormatPercent(interpreter, ToText(value), arguments.positional);
}

ValueOr Indent(Interpreter& interpreter, const Value& value,
               const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("indent", arguments, {"width", "first", "blank"}));
  Text indent(std::string(4, ' '), Origin::kTemplate);
  if (bound[0] != nullptr && bound[0]->is_string()) {
    indent = bound[0]->text();
  } else {
    CARAVAN_ASSIGN_OR_RETURN(const int64_t width,
                             IntegerOr(bound[0], 4, "width"));
    if (width < 0 || width > 1000) {
      return TemplateError("width must be in [0, 1000]");
    }
    indent = Text(std::string(width, ' '), Origin::kTemplate);
  }
  const bool first = TruthyOr(bound[1], false);
  const bool blank = TruthyOr(bound[2], false);
  const size_t count = value.text().CountOf("\n") + 1;
  CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(
      static_cast<int64_t>(count * (indent.size() + sizeof(Text)))));
  const std::vector<Text> lines = value.text().Split("\n", -1);
  Text out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.Append("\n", Origin::kTemplate);
    const bool wanted = i == 0 ? first : blank || !lines[i].empty();
    if (wanted) out.Append(indent);
    out.Append(lines[i]);
  }
  return Value(std::move(out));
}

ValueOr Truncate(Interpreter&, const Value& value, const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("truncate", arguments, {"length", "killwords", "end", "leeway"}));
  CARAVAN_ASSIGN_OR_RETURN(const int64_t length,
                           IntegerOr(bound[0], 255, "length"));
  CARAVAN_ASSIGN_OR_RETURN(const int64_t leeway,
                           IntegerOr(bound[3], 5, "leeway"));
  const Text text = ToText(value);
  const Text end = TextOr(bound[2], "...");
  const std::vector<size_t> offsets = text.CharacterOffsets();
  const auto count = static_cast<int64_t>(offsets.size()) - 1;
  const auto end_count =
      static_cast<int64_t>(end.CharacterOffsets().size()) - 1;
  if (length < end_count || leeway < 0 || length > (1 << 30)) {
    return TemplateError("length is too small for the end, or too large");
  }
  if (count <= length + leeway) return Value(text);
  Text kept = text.Slice(0, offsets[length - end_count]);
  if (!TruthyOr(bound[1], false)) {
    const size_t space = kept.bytes().rfind(' ');
    if (space != std::string::npos) kept = kept.Slice(0, space);
  }
  kept.Append(end);
  return Value(std::move(kept));
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

ValueOr UrlEncode(Interpreter& interpreter, const Value& value,
                  const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("urlencode", arguments, {}).status());
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~/";
  const Text text = ToText(value);
  CARAVAN_RETURN_IF_ERROR(
      interpreter.Allocate(static_cast<int64_t>(text.size()) * 3));
  std::string out;
  for (const char c : text.bytes()) {
    if (kPlain.find(c) != std::string_view::npos) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    }
  }
  return Value::String(out);
}

ValueOr WordCount(Interpreter&, const Value& value,
                  const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("wordcount", arguments, {}).status());
  return Value(static_cast<int64_t>(value.text().CountWords()));
}

ValueOr Safe(Interpreter&, const Value& value, const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(Bind("safe", arguments, {}).status());
  return value;  // nothing is escaped by itself
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

ValueOr Sort(Interpreter& interpreter, const Value& value,
             const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("sort", arguments, {"reverse", "case_sensitive", "attribute"}));
  CARAVAN_ASSIGN_OR_RETURN(List items, interpreter.Iterate(value));
  CARAVAN_ASSIGN_OR_RETURN(List keys, KeysOf(interpreter, items, bound[2]));
  CARAVAN_ASSIGN_OR_RETURN(
      keys, AllFolded(interpreter, std::move(keys), TruthyOr(bound[1], false)));
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
    if (bound[1] != nullptr && i >= longer && longer > 0) {
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
  for (const char* const name :
       {"upper", "lower", "title", "capitalize", "replace"}) {
    t[name] = StringMethod(name);
  }
  t["default"] = t["d"] = Default;
  t["length"] = t["count"] = Length;
  t["tojson"] = ToJsonFilter;
  t["string"] = OfText(ToStringFilter);
  t["abs"] = Abs;
  t["int"] = ToInt;
  t["float"] = ToFloat;
  t["round"] = Round;
  t["format"] = OfText(FormatFilter);
  t["indent"] = OfText(Indent);
  t["truncate"] = OfText(Truncate);
  t["escape"] = t["e"] = t["forceescape"] = OfText(Escape);
  t["urlencode"] = OfText(UrlEncode);
  t["wordcount"] = OfText(WordCount);
  t["safe"] = Safe;
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
