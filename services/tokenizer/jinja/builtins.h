// The filters, tests, functions and methods that templates may use.
#ifndef CARAVAN_SERVICES_TOKENIZER_JINJA_BUILTINS_H_
#define CARAVAN_SERVICES_TOKENIZER_JINJA_BUILTINS_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "services/tokenizer/jinja/interpreter.h"
#include "services/tokenizer/jinja/value.h"

namespace caravan::jinja {

// `input | name(arguments)`. Error: no such filter.
absl::StatusOr<Value> ApplyFilter(Interpreter& interpreter,
                                  std::string_view name, const Value& input,
                                  const Arguments& arguments);

// `input is name(arguments)`. Error: no such test.
absl::StatusOr<bool> ApplyTest(Interpreter& interpreter, std::string_view name,
                               const Value& input, const Arguments& arguments);

// Whether filters and tests of that name exist.
bool HasFilter(std::string_view name);
bool HasTest(std::string_view name);

// A global function (range, namespace, raise_exception, ...), or undefined.
Value GlobalFunction(std::string_view name);

// The method of a string, dict or list, bound to it; undefined where there is
// none. Methods that change their object are refused when called.
Value Method(const Value& value, std::string_view name);

// Arithmetic of `+ - * / // % **` as Python has it, integers within int64.
absl::StatusOr<Value> Arithmetic(Interpreter& interpreter, std::string_view op,
                                 const Value& left, const Value& right);

// `format % arguments`, with %s %r, the conversions of numbers and %%.
// `mapping` is the one argument that need not be used and may be asked for
// names, or null.
absl::StatusOr<Value> FormatPercent(Interpreter& interpreter,
                                    const Text& format, const List& arguments,
                                    const Value* mapping);

// Python's `value[start:stop:step]`, of strings by character.
absl::StatusOr<Value> Slice(Interpreter& interpreter, const Value& value,
                            const Value& start, const Value& stop,
                            const Value& step);

}  // namespace caravan::jinja

#endif  // CARAVAN_SERVICES_TOKENIZER_JINJA_BUILTINS_H_
