// Global functions.
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/tokenizer/jinja/builtins.h"

namespace caravan::jinja {
namespace {

using ValueOr = absl::StatusOr<Value>;
using Function = ValueOr (*)(Interpreter&, const Arguments&);

Value MakeCallable(
    std::string name,
    std::function<ValueOr(Interpreter&, const Arguments&)> call) {
  return Value(std::shared_ptr<const Callable>(
      std::make_shared<Callable>(Callable{std::move(name), std::move(call)})));
}

ValueOr Range(Interpreter& interpreter, const Arguments& arguments) {
  constexpr int64_t kMaxRange = 100'000;
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("range", arguments, {"start", "stop", "step"}));
  for (const Value* const value : bound) {
    if (value != nullptr && (!value->is_number() || value->is_float())) {
      return TemplateError(
          StrCat("range needs integers; got ", value->TypeName()));
    }
  }
  if (bound[0] == nullptr) return TemplateError("range needs a number");
  const bool only_stop = bound[1] == nullptr;
  const int64_t start = only_stop ? 0 : bound[0]->as_int();
  const int64_t stop = only_stop ? bound[0]->as_int() : bound[1]->as_int();
  const int64_t step = bound[2] == nullptr ? 1 : bound[2]->as_int();
  if (step == 0) return TemplateError("range step must not be zero");
  List items;
  int64_t i = start;
  while (step > 0 ? i < stop : i > stop) {
    if (static_cast<int64_t>(items.size()) >= kMaxRange) {
      return TemplateError(
          StrCat("range gives more than ", kMaxRange, " numbers"));
    }
    items.push_back(Value(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  CARAVAN_RETURN_IF_ERROR(
      interpreter.Allocate(static_cast<int64_t>(items.size() * sizeof(Value))));
  return Value::MakeList(std::move(items));
}

ValueOr MakeDict(Interpreter& interpreter, const Arguments& arguments) {
  Dict dict;
  if (arguments.positional.size() > 1) {
    return TemplateError("dict takes at most one positional argument");
  }
  if (!arguments.positional.empty()) {
    if (!arguments.positional[0].is_dict()) {
      return TemplateError("dict needs a dict");
    }
    dict = arguments.positional[0].dict();
    CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(
        static_cast<int64_t>(dict.size() * 4 * sizeof(Value))));
  }
  for (const auto& [name, value] : arguments.named) {
    dict.Set(Value::String(name), value);
  }
  return Value(std::move(dict));
}

ValueOr MakeNamespace(Interpreter& interpreter, const Arguments& arguments) {
  CARAVAN_RETURN_IF_ERROR(interpreter.Spend(8));
  const std::shared_ptr<Namespace> made = interpreter.NewNamespace();
  for (const Value& value : arguments.positional) {
    if (!value.is_dict()) return TemplateError("namespace needs a dict");
    for (const auto& [key, member] : value.dict().entries()) {
      CARAVAN_ASSIGN_OR_RETURN(const Text name, interpreter.Show(key));
      CARAVAN_RETURN_IF_ERROR(interpreter.Allocate(sizeof(Value)));
      made->attributes[name.bytes()] = member;
    }
  }
  for (const auto& [name, value] : arguments.named) {
    made->attributes[name] = value;
  }
  return Value(made);
}

ValueOr RaiseException(Interpreter& interpreter, const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("raise_exception", arguments, {"message"}));
  Text message;
  if (bound[0] != nullptr) {
    CARAVAN_ASSIGN_OR_RETURN(message, interpreter.Show(*bound[0]));
  }
  return MakeError(Reason::kTemplateError, message.bytes(),
                   {{"raised", "true"}});
}

ValueOr StrftimeNow(Interpreter& interpreter, const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("strftime_now", arguments, {"format"}));
  if (bound[0] == nullptr || !bound[0]->is_string()) {
    return TemplateError("strftime_now needs a format");
  }
  const std::string& format = bound[0]->text().bytes();
  if (format.size() > 1024) return TemplateError("date format is too long");
  CARAVAN_RETURN_IF_ERROR(
      interpreter.Spend(4 * static_cast<int64_t>(format.size())));
  return Value(
      Text(absl::FormatTime(format, interpreter.now(), interpreter.zone()),
           Origin::kValue));
}

// Gives its values in turn.
ValueOr MakeJoiner(Interpreter&, const Arguments& arguments) {
  CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                           Bind("joiner", arguments, {"sep"}));
  const Value separator =
      bound[0] == nullptr ? Value(Text(", ", Origin::kTemplate)) : *bound[0];
  const auto used = std::make_shared<bool>(false);
  return MakeCallable("joiner",
                      [separator, used](Interpreter&, const Arguments&) {
                        const bool first = !std::exchange(*used, true);
                        return ValueOr(first ? Value(Text()) : separator);
                      });
}

ValueOr MakeCycler(Interpreter& interpreter, const Arguments& arguments) {
  if (arguments.positional.empty()) return TemplateError("cycler needs values");
  const std::shared_ptr<Namespace> object = interpreter.NewNamespace();
  const auto items = std::make_shared<const List>(arguments.positional);
  const auto position = std::make_shared<size_t>(0);
  const std::weak_ptr<Namespace> weak = object;
  object->attributes["current"] = items->front();
  const auto move_to = [items, weak](size_t index) {
    if (const auto shared = weak.lock()) {
      shared->attributes["current"] = (*items)[index];
    }
  };
  object->attributes["next"] = MakeCallable(
      "next", [items, position, move_to](Interpreter&, const Arguments&) {
        const Value value = (*items)[*position];
        *position = (*position + 1) % items->size();
        move_to(*position);
        return ValueOr(value);
      });
  object->attributes["reset"] = MakeCallable(
      "reset", [position, move_to](Interpreter&, const Arguments&) {
        *position = 0;
        move_to(0);
        return ValueOr(Value::MakeNone());
      });
  return Value(object);
}

}  // namespace

Value GlobalFunction(std::string_view name) {
  static const auto& kFunctions = *new std::map<std::string_view, Value>{
      {"range", MakeCallable("range", Range)},
      {"dict", MakeCallable("dict", MakeDict)},
      {"namespace", MakeCallable("namespace", MakeNamespace)},
      {"raise_exception", MakeCallable("raise_exception", RaiseException)},
      {"strftime_now", MakeCallable("strftime_now", StrftimeNow)},
      {"joiner", MakeCallable("joiner", MakeJoiner)},
      {"cycler", MakeCallable("cycler", MakeCycler)},
  };
  const auto it = kFunctions.find(name);
  if (it == kFunctions.end()) return Value::MakeUndefined(std::string(name));
  return it->second;
}

}  // namespace caravan::jinja
