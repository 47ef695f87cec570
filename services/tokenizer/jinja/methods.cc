// Methods of strings, dicts and lists.
#include <algorithm>
#include <charconv>
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

using text::CharClass;
using text::ClassOf;
using text::DecodeUtf8;
using text::Utf8Size;
using ValueOr = absl::StatusOr<Value>;
using StringMethod =
    std::function<ValueOr(Interpreter&, const Text&, const Arguments&)>;
using ListMethod =
    std::function<ValueOr(Interpreter&, const List&, const Arguments&)>;
using DictMethod =
    std::function<ValueOr(Interpreter&, const Dict&, const Arguments&)>;
template <typename M>
using Table = std::map<std::string_view, M>;

absl::StatusOr<std::string> StringArgument(std::string_view method,
                                           const Value* value) {
  if (value == nullptr) {
    return TemplateError(StrCat(method, " needs an argument"));
  }
  if (!value->is_string()) {
    return TemplateError(
        StrCat(method, " needs a string; got ", value->TypeName()));
  }
  return value->text().bytes();
}

absl::StatusOr<int64_t> IntegerArgument(std::string_view method,
                                        const Value* value, int64_t otherwise) {
  if (value == nullptr) return otherwise;
  if (!value->is_number() || value->is_float()) {
    return TemplateError(
        StrCat(method, " needs an integer; got ", value->TypeName()));
  }
  return value->as_int();
}

Value ListOfTexts(std::vector<Text> parts) {
  List items;
  for (Text& part : parts) items.push_back(Value(std::move(part)));
  return Value::MakeList(std::move(items));
}

// Each part is a text of its own.
absl::Status AllocateParts(Interpreter& interpreter, const Text& text,
                           size_t parts) {
  CARAVAN_RETURN_IF_ERROR(interpreter.Spend(static_cast<int64_t>(parts)));
  return interpreter.Allocate(static_cast<int64_t>(
      text.size() + parts * (sizeof(Value) + sizeof(Text))));
}

// Searching from the right compares at every place.
absl::Status SpendFromRight(Interpreter& interpreter, const Text& text,
                            std::string_view what) {
  return interpreter.SpendBytes(
      static_cast<int64_t>(text.size() * std::min(text.size(), what.size())));
}

StringMethod StripMethod(bool left, bool right) {
  return [left, right](Interpreter&, const Text& text,
                       const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                             Bind("strip", arguments, {"chars"}));
    if (bound[0] == nullptr || bound[0]->is_none()) {
      return Value(text.Strip(left, right));
    }
    CARAVAN_ASSIGN_OR_RETURN(const std::string characters,
                             StringArgument("strip", bound[0]));
    if (characters.empty()) return Value(text);
    return Value(text.Strip(left, right, characters));
  };
}

StringMethod SplitMethod(bool from_right) {
  return [from_right](Interpreter& interpreter, const Text& text,
                      const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                             Bind("split", arguments, {"sep", "maxsplit"}));
    CARAVAN_ASSIGN_OR_RETURN(const int64_t limit,
                             IntegerArgument("split", bound[1], -1));
    if (bound[0] == nullptr || bound[0]->is_none()) {
      if (from_right && limit >= 0) {
        return TemplateError("rsplit needs a separator with maxsplit");
      }
      CARAVAN_RETURN_IF_ERROR(
          AllocateParts(interpreter, text, text.CountWords()));
      return ListOfTexts(text.SplitWhiteSpace(limit));
    }
    CARAVAN_ASSIGN_OR_RETURN(const std::string separator,
                             StringArgument("split", bound[0]));
    if (separator.empty()) return TemplateError("split needs a separator");
    if (from_right) {
      CARAVAN_RETURN_IF_ERROR(SpendFromRight(interpreter, text, separator));
    }
    CARAVAN_RETURN_IF_ERROR(
        AllocateParts(interpreter, text, text.CountOf(separator) + 1));
    return ListOfTexts(from_right ? text.SplitRight(separator, limit)
                                  : text.Split(separator, limit));
  };
}

ValueOr SplitLines(Interpreter& interpreter, const Text& text,
                   const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("splitlines", arguments, {"keepends"}));
  CARAVAN_RETURN_IF_ERROR(AllocateParts(interpreter, text, CountLines(text)));
  const bool keep = bound[0] != nullptr && bound[0]->Truthy();
  return ListOfTexts(LinesOf(text, keep));
}

// The stretch that the arguments `start` and `end` of a method name.
struct Range {
  size_t begin;  // in bytes
  size_t end;
  bool in_text;  // `start` is not beyond the text
};

absl::StatusOr<Range> RangeOf(const Text& text, const Value* start,
                              const Value* end) {
  if (start == nullptr && end == nullptr) return Range{0, text.size(), true};
  const std::vector<size_t> offsets = text.CharacterOffsets();
  const auto count = static_cast<int64_t>(offsets.size()) - 1;
  const auto index = [&](const Value* value,
                         int64_t otherwise) -> absl::StatusOr<int64_t> {
    if (value == nullptr || value->is_none()) return otherwise;
    CARAVAN_ASSIGN_OR_RETURN(const int64_t at,
                             IntegerArgument("index", value, otherwise));
    return at < 0 ? std::max<int64_t>(0, at < -count ? 0 : at + count) : at;
  };
  CARAVAN_ASSIGN_OR_RETURN(const int64_t begin, index(start, 0));
  CARAVAN_ASSIGN_OR_RETURN(int64_t stop, index(end, count));
  stop = std::min(stop, count);
  if (begin > stop) return Range{text.size(), text.size(), false};
  return Range{offsets[begin], offsets[stop], true};
}

// startswith and endswith: one string, or any of a tuple.
StringMethod AffixMethod(bool at_end) {
  return [at_end](Interpreter&, const Text& whole,
                  const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(const auto bound, Bind("startswith", arguments,
                                                    {"affix", "start", "end"}));
    if (bound[0] == nullptr) return TemplateError("startswith needs a string");
    CARAVAN_ASSIGN_OR_RETURN(const Range range,
                             RangeOf(whole, bound[1], bound[2]));
    const Text text = whole.Slice(range.begin, range.end - range.begin);
    const List affixes =
        bound[0]->is_tuple() ? bound[0]->items() : List{*bound[0]};
    for (const Value& affix : affixes) {
      CARAVAN_ASSIGN_OR_RETURN(const std::string bytes,
                               StringArgument("startswith", &affix));
      const bool matches = at_end ? text.bytes().ends_with(bytes)
                                  : text.bytes().starts_with(bytes);
      if (matches && range.in_text) return Value(true);
    }
    return Value(false);
  };
}

StringMethod RemoveAffixMethod(bool at_end) {
  return [at_end](Interpreter&, const Text& text,
                  const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                             Bind("removeprefix", arguments, {"affix"}));
    CARAVAN_ASSIGN_OR_RETURN(const std::string affix,
                             StringArgument("removeprefix", bound[0]));
    const bool has = at_end ? text.bytes().ends_with(affix)
                            : text.bytes().starts_with(affix);
    if (!has) return Value(text);
    const size_t size = text.size() - affix.size();
    return Value(text.Slice(at_end ? 0 : affix.size(), size));
  };
}

// Index in characters of a byte offset.
int64_t CharacterIndex(const Text& text, size_t offset) {
  return static_cast<int64_t>(
      std::count_if(text.bytes().begin(), text.bytes().begin() + offset,
                    [](char c) { return (c & 0xC0) != 0x80; }));
}

StringMethod FindMethod(bool from_right, bool must_exist) {
  return [=](Interpreter& interpreter, const Text& text,
             const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                             Bind("find", arguments, {"sub", "start", "end"}));
    CARAVAN_ASSIGN_OR_RETURN(const std::string what,
                             StringArgument("find", bound[0]));
    CARAVAN_ASSIGN_OR_RETURN(const Range range,
                             RangeOf(text, bound[1], bound[2]));
    const std::string_view bytes =
        std::string_view(text.bytes())
            .substr(range.begin, range.end - range.begin);
    if (from_right) {
      CARAVAN_RETURN_IF_ERROR(SpendFromRight(interpreter, text, what));
    }
    const size_t at = !range.in_text ? std::string_view::npos
                      : from_right   ? bytes.rfind(what)
                                     : FindBytes(bytes, what);
    if (at != std::string_view::npos) {
      return Value(CharacterIndex(text, range.begin + at));
    }
    if (must_exist) return TemplateError("substring not found");
    return Value(int64_t{-1});
  };
}

ValueOr CountText(Interpreter&, const Text& text, const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("count", arguments, {"sub", "start", "end"}));
  CARAVAN_ASSIGN_OR_RETURN(const std::string what,
                           StringArgument("count", bound[0]));
  CARAVAN_ASSIGN_OR_RETURN(const Range range,
                           RangeOf(text, bound[1], bound[2]));
  if (!range.in_text) return Value(int64_t{0});
  const Text part = text.Slice(range.begin, range.end - range.begin);
  return Value(static_cast<int64_t>(part.CountOf(what)));
}

ValueOr ReplaceText(Interpreter& interpreter, const Text& text,
                    const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("replace", arguments, {"old", "new", "count"}));
  CARAVAN_ASSIGN_OR_RETURN(const std::string from,
                           StringArgument("replace", bound[0]));
  CARAVAN_RETURN_IF_ERROR(StringArgument("replace", bound[1]).status());
  CARAVAN_ASSIGN_OR_RETURN(const int64_t limit,
                           IntegerArgument("replace", bound[2], -1));
  const Text& to = bound[1]->text();
  // Counted before it is built.
  size_t places = text.CountOf(from);
  if (limit >= 0) places = std::min(places, static_cast<size_t>(limit));
  CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(
      static_cast<int64_t>(text.size() + places * to.size())));
  CARAVAN_RETURN_IF_ERROR(interpreter.Spend(static_cast<int64_t>(places)));
  return Value(text.Replace(from, to, limit));
}

ValueOr JoinTexts(Interpreter& interpreter, const Text& text,
                  const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("join", arguments, {"iterable"}));
  if (bound[0] == nullptr) return TemplateError("join needs an iterable");
  CARAVAN_ASSIGN_OR_RETURN(const List items, interpreter.Iterate(*bound[0]));
  Text joined;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_string()) {
      return TemplateError(StrCat("join needs strings; element ", i, " is a ",
                                  items[i].TypeName()));
    }
    if (i > 0) joined.Append(text);
    joined.Append(items[i].text());
    CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(
        static_cast<int64_t>(items[i].text().size() + text.size())));
  }
  return Value(std::move(joined));
}

// All characters pass, and there is one.
StringMethod AllCharacters(bool (*passes)(uint32_t)) {
  return [passes](Interpreter&, const Text& text,
                  const Arguments& arguments) -> ValueOr {
    CARAVAN_RETURN_IF_ERROR(Bind("is...", arguments, {}).status());
    const std::string_view bytes = text.bytes();
    for (size_t i = 0; i < bytes.size(); i += Utf8Size(bytes[i])) {
      if (!passes(DecodeUtf8(bytes.substr(i)).code_point)) return Value(false);
    }
    return Value(!bytes.empty());
  };
}

// upper, lower and so on.
template <typename Change>
StringMethod Changed(Change change) {
  return [change](Interpreter& interpreter, const Text& text,
                  const Arguments& arguments) -> ValueOr {
    CARAVAN_RETURN_IF_ERROR(Bind("method", arguments, {}).status());
    CARAVAN_RETURN_IF_ERROR(interpreter.SpendBytes(
        static_cast<int64_t>(text.size()) * 3 * kCharacterWork));
    return Value(change(text));
  };
}

StringMethod CaseTest(LetterCase letter_case) {
  return [letter_case](Interpreter& interpreter, const Text& text,
                       const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(
        const bool is,
        ApplyTest(interpreter,
                  letter_case == LetterCase::kUpper ? "upper" : "lower",
                  Value(text), arguments));
    return Value(is);
  };
}

// ljust, rjust, center.
StringMethod PadMethod(bool left, bool right, std::string_view fill) {
  return [=](Interpreter& interpreter, const Text& text,
             const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                             Bind("ljust", arguments, {"width", "fillchar"}));
    CARAVAN_ASSIGN_OR_RETURN(const int64_t width,
                             IntegerArgument("ljust", bound[0], 0));
    Text filler(fill, Origin::kTemplate);
    if (bound[1] != nullptr) {
      CARAVAN_RETURN_IF_ERROR(StringArgument("ljust", bound[1]).status());
      filler = bound[1]->text();
    }
    const auto count = static_cast<int64_t>(text.CharacterOffsets().size()) - 1;
    const int64_t missing = std::max<int64_t>(0, width - count);
    CARAVAN_RETURN_IF_ERROR(
        interpreter.Allocate(std::min<int64_t>(missing, 1 << 30) *
                             static_cast<int64_t>(filler.size() + 1)));
    // As Python centers: what is odd goes where the width is.
    const int64_t before = left && right ? missing / 2 + (missing & width & 1)
                           : left        ? missing
                                         : 0;
    Text out;
    for (int64_t i = 0; i < before; ++i) out.Append(filler);
    out.Append(text);
    for (int64_t i = before; i < missing; ++i) out.Append(filler);
    return Value(std::move(out));
  };
}

// Zeros after the sign.
ValueOr ZeroFill(Interpreter& interpreter, const Text& text,
                 const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("zfill", arguments, {"width"}));
  if (bound[0] == nullptr) return TemplateError("zfill needs a width");
  CARAVAN_ASSIGN_OR_RETURN(const int64_t width,
                           IntegerArgument("zfill", bound[0], 0));
  const auto count = static_cast<int64_t>(text.CountCharacters());
  const int64_t missing = std::max<int64_t>(0, width - count);
  CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(missing));
  const bool has_sign = !text.empty() && (text.bytes().front() == '-' ||
                                          text.bytes().front() == '+');
  const size_t sign = has_sign ? 1 : 0;
  Text out = text.Slice(0, sign);
  out.Append(std::string(missing, '0'), Origin::kTemplate);
  out.Append(text.Slice(sign, text.size() - sign));
  return Value(std::move(out));
}

ValueOr ExpandTabs(Interpreter& interpreter, const Text& text,
                   const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("expandtabs", arguments, {"tabsize"}));
  CARAVAN_ASSIGN_OR_RETURN(const int64_t size,
                           IntegerArgument("expandtabs", bound[0], 8));
  if (size > 1000) return TemplateError("tabsize must be at most 1000");
  Text out;
  int64_t column = 0;
  const std::string_view bytes = text.bytes();
  for (size_t i = 0; i < bytes.size(); i += Utf8Size(bytes[i])) {
    if (bytes[i] != '\t') {
      out.Append(text.Slice(i, Utf8Size(bytes[i])));
      column = bytes[i] == '\n' || bytes[i] == '\r' ? 0 : column + 1;
      continue;
    }
    const int64_t spaces = size <= 0 ? 0 : size - column % size;
    CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(spaces));
    out.Append(std::string(spaces, ' '), text.origin(i));
    column += spaces;
  }
  return Value(std::move(out));
}

StringMethod PartitionMethod(bool from_right) {
  return [from_right](Interpreter& interpreter, const Text& text,
                      const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                             Bind("partition", arguments, {"sep"}));
    CARAVAN_ASSIGN_OR_RETURN(const std::string separator,
                             StringArgument("partition", bound[0]));
    if (separator.empty()) return TemplateError("partition needs a separator");
    if (from_right) {
      CARAVAN_RETURN_IF_ERROR(SpendFromRight(interpreter, text, separator));
    }
    const size_t at = from_right ? text.bytes().rfind(separator)
                                 : FindBytes(text.bytes(), separator);
    if (at == std::string::npos) {
      List parts = {Value(text), Value(Text()), Value(Text())};
      if (from_right) std::swap(parts[0], parts[2]);
      return Value::MakeTuple(std::move(parts));
    }
    const size_t after = at + separator.size();
    return Value::MakeTuple({Value(text.Slice(0, at)),
                             Value(text.Slice(at, separator.size())),
                             Value(text.Slice(after, text.size() - after))});
  };
}

// str.format with {}, {0} and {name}.
ValueOr FormatBraces(Interpreter& interpreter, const Text& text,
                     const Arguments& arguments) {
  Text out;
  size_t next = 0;
  const std::string_view bytes = text.bytes();
  for (size_t i = 0; i < bytes.size();) {
    const char c = bytes[i];
    if ((c == '{' || c == '}') && i + 1 < bytes.size() && bytes[i + 1] == c) {
      out.Append(text.Slice(i, 1));
      i += 2;
      continue;
    }
    if (c != '{') {
      if (c == '}') return TemplateError("format has a single '}'");
      out.Append(text.Slice(i++, 1));
      continue;
    }
    const size_t end = bytes.find('}', i);
    if (end == std::string_view::npos) {
      return TemplateError("format has a single '{'");
    }
    const std::string_view field = bytes.substr(i + 1, end - i - 1);
    const Value* value = nullptr;
    size_t index = next;
    const auto parsed =
        std::from_chars(field.data(), field.data() + field.size(), index);
    const bool numbered = !field.empty() && parsed.ec == std::errc() &&
                          parsed.ptr == field.data() + field.size();
    if (field.empty()) ++next;
    if (field.empty() || numbered) {
      if (index < arguments.positional.size()) {
        value = &arguments.positional[index];
      }
    } else {
      for (const auto& [name, named] : arguments.named) {
        if (name == field) value = &named;
      }
    }
    if (value == nullptr) {
      return TemplateError(StrCat("format has no value for {", field, "}"));
    }
    CARAVAN_ASSIGN_OR_RETURN(const Text shown, interpreter.Show(*value));
    CARAVAN_RETURN_IF_ERROR(
        interpreter.Allocate(static_cast<int64_t>(shown.size())));
    out.Append(shown);
    i = end + 1;
  }
  return Value(std::move(out));
}

bool IsDigit(uint32_t c) {
  return c < 0x80 ? c >= '0' && c <= '9' : ClassOf(c) == CharClass::kNumber;
}
bool IsLetter(uint32_t c) { return ClassOf(c) == CharClass::kLetter; }
bool IsAlnum(uint32_t c) { return IsDigit(c) || IsLetter(c); }

// Without what only some scripts allow inside of names.
bool IsIdentifier(const Text& text) {
  const std::string_view bytes = text.bytes();
  for (size_t i = 0; i < bytes.size(); i += Utf8Size(bytes[i])) {
    const uint32_t c = DecodeUtf8(bytes.substr(i)).code_point;
    if (c != '_' && !IsLetter(c) && (i == 0 || !IsDigit(c))) return false;
  }
  return !bytes.empty();
}

// A question about a text, without arguments.
StringMethod TextTest(bool (*test)(const Text&)) {
  return [test](Interpreter&, const Text& text,
                const Arguments& arguments) -> ValueOr {
    CARAVAN_RETURN_IF_ERROR(Bind("method", arguments, {}).status());
    return Value(test(text));
  };
}

Table<StringMethod> MakeStringMethods() {
  Table<StringMethod> m;
  m["strip"] = StripMethod(true, true);
  m["lstrip"] = StripMethod(true, false);
  m["rstrip"] = StripMethod(false, true);
  m["split"] = SplitMethod(false);
  m["rsplit"] = SplitMethod(true);
  m["splitlines"] = SplitLines;
  m["startswith"] = AffixMethod(false);
  m["endswith"] = AffixMethod(true);
  m["removeprefix"] = RemoveAffixMethod(false);
  m["removesuffix"] = RemoveAffixMethod(true);
  m["find"] = FindMethod(false, false);
  m["rfind"] = FindMethod(true, false);
  m["index"] = FindMethod(false, true);
  m["rindex"] = FindMethod(true, true);
  m["count"] = CountText;
  m["replace"] = ReplaceText;
  m["join"] = JoinTexts;
  m["format"] = FormatBraces;
  m["partition"] = PartitionMethod(false);
  m["rpartition"] = PartitionMethod(true);
  m["upper"] =
      Changed([](const Text& t) { return ToCase(t, LetterCase::kUpper); });
  m["lower"] =
      Changed([](const Text& t) { return ToCase(t, LetterCase::kLower); });
  m["casefold"] =
      Changed([](const Text& t) { return ToCase(t, LetterCase::kFolded); });
  m["title"] = Changed(TitleCase);
  m["capitalize"] = Changed(Capitalize);
  m["isdigit"] = AllCharacters(IsDigit);
  m["isdecimal"] = m["isdigit"];
  m["isnumeric"] = m["isdigit"];
  m["isalpha"] = AllCharacters(IsLetter);
  m["isalnum"] = AllCharacters(IsAlnum);
  m["isspace"] = AllCharacters(IsSpace);
  m["isupper"] = CaseTest(LetterCase::kUpper);
  m["islower"] = CaseTest(LetterCase::kLower);
  m["ljust"] = PadMethod(false, true, " ");
  m["rjust"] = PadMethod(true, false, " ");
  m["center"] = PadMethod(true, true, " ");
  m["zfill"] = ZeroFill;
  m["expandtabs"] = ExpandTabs;
  m["swapcase"] = Changed(SwapCase);
  m["istitle"] = TextTest([](const Text& t) { return IsTitle(t); });
  m["isascii"] = TextTest([](const Text& t) {
    return std::all_of(t.bytes().begin(), t.bytes().end(),
                       [](char c) { return (c & 0x80) == 0; });
  });
  m["isidentifier"] = TextTest(IsIdentifier);
  return m;
}

ValueOr DictGet(Interpreter& interpreter, const Dict& dict,
                const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("get", arguments, {"key", "default"}));
  if (bound[0] == nullptr) return TemplateError("get needs a key");
  CARAVAN_ASSIGN_OR_RETURN(const Value* const value,
                           interpreter.Find(dict, *bound[0]));
  if (value != nullptr) return *value;
  return bound[1] == nullptr ? Value::MakeNone() : *bound[1];
}

enum class View { kKeys, kValues, kItems };

DictMethod DictView(View view) {
  return [view](Interpreter& interpreter, const Dict& dict,
                const Arguments& arguments) -> ValueOr {
    CARAVAN_RETURN_IF_ERROR(Bind("items", arguments, {}).status());
    CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(
        static_cast<int64_t>(dict.size() * sizeof(Value))));
    List items;
    for (const auto& [key, value] : dict.entries()) {
      items.push_back(view == View::kKeys     ? key
                      : view == View::kValues ? value
                                              : Value::MakeTuple({key, value}));
    }
    return Value::MakeList(std::move(items));
  };
}

Table<DictMethod> MakeDictMethods() {
  Table<DictMethod> m;
  m["get"] = DictGet;
  m["keys"] = DictView(View::kKeys);
  m["values"] = DictView(View::kValues);
  m["items"] = DictView(View::kItems);
  m["copy"] = [](Interpreter& interpreter, const Dict& dict,
                 const Arguments&) -> ValueOr {
    CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(
        static_cast<int64_t>(dict.size() * 4 * sizeof(Value))));
    return Value(dict);
  };
  for (const char* const name :
       {"pop", "popitem", "update", "setdefault", "clear"}) {
    m[name] = [name](Interpreter&, const Dict&, const Arguments&) -> ValueOr {
      return TemplateError(StrCat("dict.", name, " is not allowed"));
    };
  }
  return m;
}

ValueOr ListIndex(Interpreter& interpreter, const List& items,
                  const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("index", arguments, {"value"}));
  if (bound[0] == nullptr) return TemplateError("index needs a value");
  for (size_t i = 0; i < items.size(); ++i) {
    CARAVAN_ASSIGN_OR_RETURN(const bool same,
                             interpreter.Same(items[i], *bound[0]));
    if (same) return Value(static_cast<int64_t>(i));
  }
  return TemplateError("value is not in the list");
}

ValueOr ListCount(Interpreter& interpreter, const List& items,
                  const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("count", arguments, {"value"}));
  if (bound[0] == nullptr) return TemplateError("count needs a value");
  int64_t count = 0;
  for (const Value& item : items) {
    CARAVAN_ASSIGN_OR_RETURN(const bool same,
                             interpreter.Same(item, *bound[0]));
    if (same) ++count;
  }
  return Value(count);
}

Table<ListMethod> MakeListMethods() {
  Table<ListMethod> m;
  m["index"] = ListIndex;
  m["count"] = ListCount;
  m["copy"] = [](Interpreter& interpreter, const List& items,
                 const Arguments&) -> ValueOr {
    CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(
        static_cast<int64_t>(items.size() * sizeof(Value))));
    return Value::MakeList(items);
  };
  for (const char* const name : {"append", "extend", "insert", "pop", "remove",
                                 "reverse", "sort", "clear"}) {
    m[name] = [name](Interpreter&, const List&, const Arguments&) -> ValueOr {
      return TemplateError(StrCat("list.", name, " is not allowed"));
    };
  }
  return m;
}

// Methods of strings look at their characters, those of lists at their items;
// either may look at all of their arguments.
absl::Status SpendOnCall(Interpreter& interpreter, const Value& value,
                         const Arguments& arguments) {
  int64_t bytes = 0;
  if (value.is_string()) bytes = value.weight() * kCharacterWork;
  if (value.is_sequence()) bytes = value.items().size() * sizeof(Value);
  for (const Value& argument : arguments.positional) {
    bytes += argument.weight();
  }
  for (const auto& [name, argument] : arguments.named) {
    bytes += argument.weight();
  }
  return interpreter.SpendBytes(bytes);
}

// The method of that name, bound to what `receiver` takes out of the value.
template <typename M, typename Receiver>
Value Bound(const Table<M>& methods, const Value& value, std::string_view name,
            Receiver receiver) {
  const auto it = methods.find(name);
  if (it == methods.end()) return Value::MakeUndefined(std::string(name));
  const M* const method = &it->second;
  auto callable = std::make_shared<Callable>();
  callable->name = std::string(name);
  callable->call = [value, method, receiver](
                       Interpreter& interpreter,
                       const Arguments& arguments) -> ValueOr {
    CARAVAN_RETURN_IF_ERROR(SpendOnCall(interpreter, value, arguments));
    return (*method)(interpreter, receiver(value), arguments);
  };
  return Value(std::shared_ptr<const Callable>(std::move(callable)));
}

}  // namespace

Value Method(const Value& value, std::string_view name) {
  static const auto& kStrings = *new Table<StringMethod>(MakeStringMethods());
  static const auto& kDicts = *new Table<DictMethod>(MakeDictMethods());
  static const auto& kLists = *new Table<ListMethod>(MakeListMethods());
  if (value.is_string()) {
    return Bound(kStrings, value, name,
                 [](const Value& v) -> const Text& { return v.text(); });
  }
  if (value.is_dict()) {
    return Bound(kDicts, value, name,
                 [](const Value& v) -> const Dict& { return v.dict(); });
  }
  // A tuple has none of the methods that lists have for being changed.
  if (value.is_tuple() && name != "index" && name != "count") {
    return Value::MakeUndefined(std::string(name));
  }
  if (value.is_sequence()) {
    return Bound(kLists, value, name,
                 [](const Value& v) -> const List& { return v.items(); });
  }
  return Value::MakeUndefined(std::string(name));
}

}  // namespace caravan::jinja
