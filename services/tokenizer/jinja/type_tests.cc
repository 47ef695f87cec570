// `value is name`.
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/tokenizer/jinja/builtins.h"

namespace caravan::jinja {
namespace {

using Test = std::function<absl::StatusOr<bool>(Interpreter&, const Value&,
                                                const Arguments&)>;

// A test without arguments.
template <typename Predicate>
Test Plain(Predicate predicate) {
  return [predicate](Interpreter&, const Value& value,
                     const Arguments& arguments) -> absl::StatusOr<bool> {
    CARAVAN_RETURN_IF_ERROR(Bind("test", arguments, {}).status());
    return predicate(value);
  };
}

// A test with one argument.
template <typename Predicate>
Test WithOperand(Predicate predicate) {
  return [predicate](Interpreter& interpreter, const Value& value,
                     const Arguments& arguments) -> absl::StatusOr<bool> {
    CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                             Bind("test", arguments, {"other"}));
    if (bound[0] == nullptr) return TemplateError("test needs an argument");
    return predicate(interpreter, value, *bound[0]);
  };
}

absl::StatusOr<bool> IsCase(Interpreter& interpreter, const Value& value,
                            LetterCase letter_case) {
  CARAVAN_ASSIGN_OR_RETURN(const Text text, interpreter.Show(value));
  CARAVAN_RETURN_IF_ERROR(interpreter.SpendBytes(
      static_cast<int64_t>(text.size()) * 4 * kCharacterWork));
  const LetterCase other = letter_case == LetterCase::kUpper
                               ? LetterCase::kLower
                               : LetterCase::kUpper;
  return ToCase(text, letter_case).bytes() == text.bytes() &&
         ToCase(text, other).bytes() != text.bytes();
}

Test CaseTest(LetterCase letter_case) {
  return [letter_case](Interpreter& interpreter, const Value& value,
                       const Arguments& arguments) -> absl::StatusOr<bool> {
    CARAVAN_RETURN_IF_ERROR(Bind("test", arguments, {}).status());
    return IsCase(interpreter, value, letter_case);
  };
}

absl::StatusOr<bool> IsMultiple(Interpreter& interpreter, const Value& value,
                                const Value& divisor) {
  CARAVAN_ASSIGN_OR_RETURN(const Value rest,
                           Arithmetic(interpreter, "%", value, divisor));
  return !rest.Truthy();
}

bool IsIterable(const Value& v) {
  return v.is_string() || v.is_sequence() || v.is_dict() || v.is_undefined();
}

Test Parity(int64_t parity) {
  return [parity](Interpreter& interpreter, const Value& value,
                  const Arguments& arguments) -> absl::StatusOr<bool> {
    CARAVAN_RETURN_IF_ERROR(Bind("test", arguments, {}).status());
    CARAVAN_ASSIGN_OR_RETURN(
        const Value rest,
        Arithmetic(interpreter, "%", value, Value(int64_t{2})));
    return Equal(rest, Value(parity));
  };
}

Test Ordered(bool swap, bool negate) {
  return WithOperand([swap, negate](Interpreter& interpreter, const Value& a,
                                    const Value& b) -> absl::StatusOr<bool> {
    CARAVAN_ASSIGN_OR_RETURN(const bool less, swap ? interpreter.Before(b, a)
                                                   : interpreter.Before(a, b));
    return less != negate;
  });
}

void AddKinds(std::map<std::string, Test, std::less<>>* tests) {
  auto& t = *tests;
  t["defined"] = Plain([](const Value& v) { return !v.is_undefined(); });
  t["undefined"] = Plain([](const Value& v) { return v.is_undefined(); });
  t["none"] = Plain([](const Value& v) { return v.is_none(); });
  t["boolean"] = Plain([](const Value& v) { return v.is_bool(); });
  t["true"] = Plain([](const Value& v) { return v.is_bool() && v.as_bool(); });
  t["false"] =
      Plain([](const Value& v) { return v.is_bool() && !v.as_bool(); });
  t["integer"] = Plain([](const Value& v) { return v.is_int(); });
  t["float"] = Plain([](const Value& v) { return v.is_float(); });
  t["number"] = Plain([](const Value& v) { return v.is_number(); });
  t["string"] = Plain([](const Value& v) { return v.is_string(); });
  t["mapping"] = Plain([](const Value& v) { return v.is_dict(); });
  t["sequence"] = Plain([](const Value& v) {
    return v.is_string() || v.is_sequence() || v.is_dict() || v.is_undefined();
  });
  t["iterable"] = Plain(IsIterable);
  // Undefined can be called, and fails.
  t["callable"] = Plain([](const Value& v) {
    return v.is_callable() || v.is_undefined() || v.is_loop();
  });
  t["lower"] = CaseTest(LetterCase::kLower);
  t["upper"] = CaseTest(LetterCase::kUpper);
  t["escaped"] = Plain([](const Value&) { return false; });
  t["odd"] = Parity(1);
  t["even"] = Parity(0);
}

// Whether a name is in a table; lists and dicts cannot be.
Test NameTest(bool (*has)(std::string_view)) {
  return [has](Interpreter&, const Value& value,
               const Arguments& arguments) -> absl::StatusOr<bool> {
    CARAVAN_RETURN_IF_ERROR(Bind("test", arguments, {}).status());
    if (value.is_dict() || (value.is_sequence() && !value.is_tuple())) {
      return TemplateError(StrCat("a ", value.TypeName(), " cannot be a name"));
    }
    return value.is_string() && has(value.text().bytes());
  };
}

void AddComparisons(std::map<std::string, Test, std::less<>>* tests) {
  auto& t = *tests;
  const Test equal =
      WithOperand([](Interpreter& interpreter, const Value& a, const Value& b) {
        return interpreter.Same(a, b);
      });
  const Test not_equal =
      WithOperand([](Interpreter& interpreter, const Value& a,
                     const Value& b) -> absl::StatusOr<bool> {
        CARAVAN_ASSIGN_OR_RETURN(const bool same, interpreter.Same(a, b));
        return !same;
      });
  for (const char* const name : {"eq", "==", "equalto"}) t[name] = equal;
  for (const char* const name : {"ne", "!="}) t[name] = not_equal;
  for (const char* const name : {"lt", "<", "lessthan"}) {
    t[name] = Ordered(/*swap=*/false, /*negate=*/false);
  }
  for (const char* const name : {"gt", ">", "greaterthan"}) {
    t[name] = Ordered(/*swap=*/true, /*negate=*/false);
  }
  for (const char* const name : {"le", "<="}) t[name] = Ordered(true, true);
  for (const char* const name : {"ge", ">="}) t[name] = Ordered(false, true);
  t["sameas"] = WithOperand([](Interpreter& interpreter, const Value& a,
                               const Value& b) -> absl::StatusOr<bool> {
    if (a.TypeName() != b.TypeName()) return false;
    return interpreter.Same(a, b);
  });
  t["in"] =
      WithOperand([](Interpreter& interpreter, const Value& a, const Value& b) {
        return interpreter.Contains(b, a);
      });
  t["divisibleby"] = WithOperand(IsMultiple);
  t["filter"] = NameTest(HasFilter);
  t["test"] = NameTest(HasTest);
}

const std::map<std::string, Test, std::less<>>& AllTests() {
  static const auto& kTests = *[] {
    auto* const tests = new std::map<std::string, Test, std::less<>>();
    AddKinds(tests);
    AddComparisons(tests);
    return tests;
  }();
  return kTests;
}

}  // namespace

bool HasTest(std::string_view name) { return AllTests().contains(name); }

absl::StatusOr<bool> ApplyTest(Interpreter& interpreter, std::string_view name,
                               const Value& input, const Arguments& arguments) {
  const auto it = AllTests().find(name);
  if (it == AllTests().end()) {
    return TemplateError(StrCat("no test is called '", name, "'"));
  }
  return it->second(interpreter, input, arguments);
}

}  // namespace caravan::jinja
