// Operators, slices and %-formatting.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/tokenizer/jinja/builtins.h"

namespace caravan::jinja {
namespace {

using ValueOr = absl::StatusOr<Value>;

absl::Status BadOperands(std::string_view op, const Value& left,
                         const Value& right) {
  return TemplateError(StrCat("cannot compute ", left.TypeName(), " ", op, " ",
                              right.TypeName()));
}

int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return quotient - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

ValueOr IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    return Value(
        std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) {
      return TemplateError("integer is out of range");
    }
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) {
      return TemplateError("integer is out of range");
    }
  }
  return Value(result);
}

ValueOr IntegerArithmetic(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (op == "**") {
    return IntegerPower(a, b);
  } else if (b == 0) {
    return TemplateError("division by zero");
  } else if (op == "/") {
    return Value(static_cast<double>(a) / static_cast<double>(b));
  } else if (b == -1) {
    overflow = op == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
  } else {
    const int64_t quotient = FloorDivide(a, b);
    result = op == "//" ? quotient : a - quotient * b;
  }
  if (overflow) return TemplateError("integer is out of range");
  return Value(result);
}

ValueOr FloatArithmetic(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return Value(std::pow(a, b));
  if (b == 0) return TemplateError("division by zero");
  if (op == "/") return Value(a / b);
  const double quotient = std::floor(a / b);
  return Value(op == "//" ? quotient : a - quotient * b);
}

// A string or list, `count` times.
ValueOr Repeat(Interpreter& interpreter, const Value& value, int64_t count) {
  count = std::max<int64_t>(count, 0);
  const auto size = static_cast<int64_t>(
      value.is_string() ? value.text().size()
                        : value.items().size() * sizeof(Value));
  int64_t bytes = 0;
  if (__builtin_mul_overflow(size, count, &bytes)) bytes = INT64_MAX / 2;
  CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(bytes));
  if (size == 0) return value;
  if (value.is_string()) {
    Text text;
    Text chunk = value.text();
    for (; count > 0; count /= 2) {
      if (count % 2 == 1) text.Append(chunk);
      if (count > 1) chunk.Append(chunk);
    }
    return Value(std::move(text));
  }
  List items;
  for (int64_t i = 0; i < count; ++i) {
    items.insert(items.end(), value.items().begin(), value.items().end());
  }
  return value.is_tuple() ? Value::MakeTuple(std::move(items))
                          : Value::MakeList(std::move(items));
}

ValueOr Concatenate(Interpreter& interpreter, const Value& left,
                    const Value& right) {
  if (left.is_string()) {
    CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(
        static_cast<int64_t>(left.text().size() + right.text().size())));
    Text text = left.text();
    text.Append(right.text());
    return Value(std::move(text));
  }
  List items = left.items();
  items.insert(items.end(), right.items().begin(), right.items().end());
  CARAVAN_RETURN_IF_ERROR(
      interpreter.Allocate(static_cast<int64_t>(items.size() * sizeof(Value))));
  return left.is_tuple() ? Value::MakeTuple(std::move(items))
                         : Value::MakeList(std::move(items));
}

// One conversion of a %-format.
struct Conversion {
  std::optional<std::string> name;  // of %(name)s
  std::string flags;
  int width = 0;
  int precision = -1;
  char type = 's';

  bool Has(char flag) const { return flags.find(flag) != std::string::npos; }
};

std::optional<Conversion> ParseConversion(std::string_view text, size_t* at) {
  Conversion conversion;
  size_t i = *at;
  if (i < text.size() && text[i] == '(') {
    const size_t end = text.find(')', i);
    if (end == std::string_view::npos) return std::nullopt;
    conversion.name = text.substr(i + 1, end - i - 1);
    i = end + 1;
  }
  const auto number = [&](int* value) {
    const auto [end, error] =
        std::from_chars(text.data() + i, text.data() + text.size(), *value);
    if (error == std::errc()) i = end - text.data();
    return error != std::errc::result_out_of_range && *value <= 1000;
  };
  while (i < text.size() &&
         std::string_view("-+ 0#").find(text[i]) != std::string_view::npos) {
    conversion.flags += text[i++];
  }
  if (!number(&conversion.width)) return std::nullopt;
  if (i < text.size() && text[i] == '.') {
    ++i;
    conversion.precision = 0;
    if (!number(&conversion.precision)) return std::nullopt;
  }
  if (i >= text.size()) return std::nullopt;
  conversion.type = text[i];
  *at = i + 1;
  return conversion;
}

bool IsOneOf(char type, std::string_view types) {
  return types.find(type) != std::string_view::npos;
}

std::string FormatInteger(char type, int precision, uint64_t magnitude) {
  const int base = IsOneOf(type, "xX") ? 16 : type == 'o' ? 8 : 10;
  char buffer[64];
  const auto [end, error] =
      std::to_chars(buffer, buffer + sizeof buffer, magnitude, base);
  std::string digits(buffer, end);
  if (type == 'X') {
    for (char& c : digits) c = c >= 'a' ? static_cast<char>(c - 32) : c;
  }
  const auto wanted = static_cast<size_t>(std::max(precision, 0));
  if (digits.size() < wanted) digits.insert(0, wanted - digits.size(), '0');
  return digits;
}

std::string FormatFloat(char type, int precision, double magnitude) {
  const char format[] = {'%', '.', '*', type, '\0'};
  char buffer[512];
  const int size =
      std::snprintf(buffer, sizeof buffer, format,
                    precision < 0 ? 6 : std::min(precision, 100), magnitude);
  return std::string(buffer, std::min<size_t>(size, sizeof buffer - 1));
}

// A number's sign and digits.
struct Digits {
  bool negative;
  std::string digits;
};

absl::StatusOr<Digits> DigitsOf(const Conversion& conversion,
                                const Value& value) {
  const char type = conversion.type;
  if (IsOneOf(type, "eEfFgG")) {
    const double number = value.as_float();
    return Digits{std::signbit(number),
                  FormatFloat(type, conversion.precision, std::fabs(number))};
  }
  if (value.is_float() && !(std::fabs(value.as_float()) < 9.2e18)) {
    return TemplateError("integer is out of range");
  }
  const int64_t number = value.is_float()
                             ? static_cast<int64_t>(value.as_float())
                             : value.as_int();
  const auto bits = static_cast<uint64_t>(number);
  return Digits{number < 0, FormatInteger(type, conversion.precision,
                                          number < 0 ? 0 - bits : bits)};
}

absl::StatusOr<Text> ConvertText(Interpreter& interpreter,
                                 const Conversion& conversion,
                                 const Value& value) {
  Text text;
  if (conversion.type == 's') {
    CARAVAN_ASSIGN_OR_RETURN(text, interpreter.Show(value));
  } else {
    CARAVAN_RETURN_IF_ERROR(
        interpreter.SpendBytes(value.weight() * kCharacterWork));
    text = Text(Repr(value), Origin::kValue);
  }
  if (conversion.precision < 0) return text;
  const std::vector<size_t> offsets = text.CharacterOffsets();
  return text.Slice(
      0, offsets[std::min<size_t>(conversion.precision, offsets.size() - 1)]);
}

// The sign, zeros if they are wanted, the digits.
absl::StatusOr<Text> ConvertNumber(const Conversion& conversion,
                                   const Value& value) {
  const char type = conversion.type;
  if (!IsOneOf(type, "diuxXoeEfFgG")) {
    return TemplateError(StrCat("format has the unknown conversion %",
                                std::string_view(&type, 1)));
  }
  if (!value.is_number() || (IsOneOf(type, "xXo") && value.is_float())) {
    return TemplateError(StrCat("%", std::string_view(&type, 1),
                                " cannot show a ", value.TypeName()));
  }
  CARAVAN_ASSIGN_OR_RETURN(const Digits number, DigitsOf(conversion, value));
  std::string text = number.negative       ? "-"
                     : conversion.Has('+') ? "+"
                     : conversion.Has(' ') ? " "
                                           : "";
  if (conversion.Has('#') && IsOneOf(type, "xXo")) text += {'0', type};
  const size_t size = text.size() + number.digits.size();
  const auto width = static_cast<size_t>(conversion.width);
  const bool zeros = conversion.Has('0') && !conversion.Has('-');
  if (zeros && width > size) text.append(width - size, '0');
  return Text(text + number.digits, Origin::kValue);
}

absl::StatusOr<Text> Convert(Interpreter& interpreter,
                             const Conversion& conversion, const Value& value) {
  return IsOneOf(conversion.type, "sr")
             ? ConvertText(interpreter, conversion, value)
             : ConvertNumber(conversion, value);
}

void AppendPadded(const Conversion& conversion, const Text& text, Text* out) {
  const auto width = static_cast<size_t>(conversion.width);
  const size_t count = text.CountCharacters();
  const std::string padding(width > count ? width - count : 0, ' ');
  const bool left = conversion.Has('-');
  if (!left) out->Append(padding, Origin::kValue);
  out->Append(text);
  if (left) out->Append(padding, Origin::kValue);
}

// The values of a format, in turn or by name.
class FormatArguments {
 public:
  FormatArguments(const List& values, const Value* mapping)
      : values_(values), mapping_(mapping) {}

  absl::StatusOr<Value> Next(const std::optional<std::string>& name) {
    if (name) {
      if (mapping_ == nullptr || !mapping_->is_dict()) {
        return TemplateError("format with names needs a mapping");
      }
      const Value* const found = mapping_->dict().Find(*name);
      if (found != nullptr) return *found;
      return TemplateError(StrCat("format has no value for ", *name));
    }
    if (next_ < values_.size()) return values_[next_++];
    return TemplateError("format has more conversions than arguments");
  }

  absl::Status CheckAllUsed() const {
    if (mapping_ != nullptr || next_ >= values_.size()) return absl::OkStatus();
    return TemplateError("format has fewer conversions than arguments");
  }

 private:
  const List& values_;
  const Value* const mapping_;
  size_t next_ = 0;
};

// Bounds of a slice of `count` elements, as Python clips them.
struct SliceBounds {
  int64_t start;
  int64_t stop;
  int64_t step;

  // How many elements there are, or one more.
  int64_t Count() const {
    const int64_t distance = step > 0 ? stop - start : start - stop;
    if (distance <= 0) return 0;
    return step == INT64_MIN ? 1 : distance / std::abs(step) + 1;
  }
};

absl::StatusOr<SliceBounds> BoundsOf(const Value& start, const Value& stop,
                                     const Value& step, int64_t count) {
  const auto integer = [](const Value& value) {
    return value.is_number() && !value.is_float();
  };
  for (const Value* const value : {&start, &stop, &step}) {
    if (!value->is_none() && !integer(*value)) {
      return TemplateError(
          StrCat("slice needs integers; got ", value->TypeName()));
    }
  }
  SliceBounds bounds = {0, count, step.is_none() ? 1 : step.as_int()};
  if (bounds.step == 0) return TemplateError("slice step must not be zero");
  const bool down = bounds.step < 0;
  const int64_t least = down ? -1 : 0;
  const int64_t most = down ? count - 1 : count;
  const auto clip = [&](const Value& value, int64_t otherwise) {
    if (value.is_none()) return otherwise;
    int64_t at = value.as_int();
    if (at < 0) at = at < -count ? least : at + count;
    return std::clamp(at, least, most);
  };
  bounds.start = clip(start, down ? most : least);
  bounds.stop = clip(stop, down ? least : most);
  return bounds;
}

}  // namespace

ValueOr Arithmetic(Interpreter& interpreter, std::string_view op,
                   const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    if (left.is_float() || right.is_float()) {
      return FloatArithmetic(op, left.as_float(), right.as_float());
    }
    return IntegerArithmetic(op, left.as_int(), right.as_int());
  }
  if (op == "%" && left.is_string()) {
    if (right.is_tuple()) {
      return FormatPercent(interpreter, left.text(), right.items(), nullptr);
    }
    const bool is_mapping =
        right.is_dict() || right.is_sequence() || right.is_undefined();
    return FormatPercent(interpreter, left.text(), {right},
                         is_mapping ? &right : nullptr);
  }
  for (const Value* const value : {&left, &right}) {
    if (value->is_undefined()) {
      return TemplateError(
          StrCat("'", value->undefined_name(), "' is undefined"));
    }
  }
  const bool same_sequence = left.is_sequence() && right.is_sequence() &&
                             left.is_tuple() == right.is_tuple();
  if (op == "+" && ((left.is_string() && right.is_string()) || same_sequence)) {
    return Concatenate(interpreter, left, right);
  }
  const auto repeatable = [](const Value& value) {
    return value.is_string() || value.is_sequence();
  };
  const auto whole = [](const Value& value) {
    return value.is_int() || value.is_bool();
  };
  if (op == "*" && repeatable(left) && whole(right)) {
    return Repeat(interpreter, left, right.as_int());
  }
  if (op == "*" && whole(left) && repeatable(right)) {
    return Repeat(interpreter, right, left.as_int());
  }
  return BadOperands(op, left, right);
}

ValueOr FormatPercent(Interpreter& interpreter, const Text& format,
                      const List& arguments, const Value* mapping) {
  Text out;
  FormatArguments values(arguments, mapping);
  const std::string_view bytes = format.bytes();
  size_t i = 0;
  while (i < bytes.size()) {
    const size_t percent = std::min(bytes.find('%', i), bytes.size());
    out.Append(format.Slice(i, percent - i));
    if (percent == bytes.size()) break;
    i = percent + 1;
    if (i < bytes.size() && bytes[i] == '%') {
      out.Append(format.Slice(i++, 1));
      continue;
    }
    const std::optional<Conversion> conversion = ParseConversion(bytes, &i);
    if (!conversion) return TemplateError("format has a broken conversion");
    CARAVAN_RETURN_IF_ERROR(interpreter.Spend(1));
    CARAVAN_ASSIGN_OR_RETURN(const Value value, values.Next(conversion->name));
    CARAVAN_ASSIGN_OR_RETURN(const Text text,
                             Convert(interpreter, *conversion, value));
    CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(
        static_cast<int64_t>(text.size()) + conversion->width));
    AppendPadded(*conversion, text, &out);
  }
  CARAVAN_RETURN_IF_ERROR(values.CheckAllUsed());
  return Value(std::move(out));
}

ValueOr Slice(Interpreter& interpreter, const Value& value, const Value& start,
              const Value& stop, const Value& step) {
  if (value.is_undefined()) {
    return TemplateError(StrCat("'", value.undefined_name(), "' is undefined"));
  }
  if (!value.is_string() && !value.is_sequence()) {
    return TemplateError(StrCat("a ", value.TypeName(), " has no slices"));
  }
  std::vector<size_t> offsets;
  if (value.is_string()) {
    CARAVAN_RETURN_IF_ERROR(
        interpreter.SpendBytes(value.weight() * kCharacterWork));
    offsets = value.text().CharacterOffsets();
  }
  const auto count = static_cast<int64_t>(
      value.is_string() ? offsets.size() - 1 : value.items().size());
  CARAVAN_ASSIGN_OR_RETURN(const SliceBounds bounds,
                           BoundsOf(start, stop, step, count));
  CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(
      static_cast<int64_t>(sizeof(Value)) * bounds.Count()));
  if (value.is_string() && bounds.step == 1) {
    const int64_t stop_at = std::max(bounds.start, bounds.stop);
    return Value(value.text().Slice(offsets[bounds.start],
                                    offsets[stop_at] - offsets[bounds.start]));
  }
  Text text;
  List items;
  int64_t i = bounds.start;
  while (bounds.step > 0 ? i < bounds.stop : i > bounds.stop) {
    if (value.is_string()) {
      text.Append(value.text().Slice(offsets[i], offsets[i + 1] - offsets[i]));
    } else {
      items.push_back(value.items()[i]);
    }
    if (__builtin_add_overflow(i, bounds.step, &i)) break;
  }
  if (value.is_string()) return Value(std::move(text));
  return value.is_tuple() ? Value::MakeTuple(std::move(items))
                          : Value::MakeList(std::move(items));
}

}  // namespace caravan::jinja
