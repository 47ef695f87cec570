#include "services/tokenizer/jinja/interpreter.h"

#include <algorithm>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/tokenizer/jinja/builtins.h"
#include "services/tokenizer/jinja/lexer.h"

namespace caravan::jinja {
namespace {

// Making a scope and its names, against evaluating a name.
constexpr int64_t kStepsPerScope = 4;

// Adds the line to an error of the template that has none yet.
absl::Status AtLine(const absl::Status& status, int line) {
  if (ReasonOf(status) != Reason::kTemplateError) return status;
  const ErrorMetadata metadata = MetadataOf(status);
  if (metadata.contains("line") || metadata.contains("raised")) return status;
  return ErrorAtLine(line, ToStd(status.message()));
}

}  // namespace

absl::Status TemplateError(std::string_view what) {
  return MakeError(Reason::kTemplateError, what);
}

absl::StatusOr<std::vector<const Value*>> Bind(
    std::string_view function, const Arguments& arguments,
    std::initializer_list<std::string_view> parameters) {
  std::vector<const Value*> bound(parameters.size(), nullptr);
  if (arguments.positional.size() > bound.size()) {
    return TemplateError(StrCat(function, " takes at most ", bound.size(),
                                " arguments; got ",
                                arguments.positional.size()));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    bound[i] = &arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    const auto* const parameter =
        std::find(parameters.begin(), parameters.end(), name);
    if (parameter == parameters.end()) {
      return TemplateError(StrCat(function, " has no argument '", name, "'"));
    }
    const Value*& slot = bound[parameter - parameters.begin()];
    if (slot != nullptr) {
      return TemplateError(StrCat(function, " got '", name, "' twice"));
    }
    slot = &value;
  }
  return bound;
}

// Counts nested evaluations.
class Interpreter::DepthGuard {
 public:
  explicit DepthGuard(Interpreter* interpreter) : interpreter_(interpreter) {
    ++interpreter_->depth_;
  }
  ~DepthGuard() { --interpreter_->depth_; }
  absl::Status Check() const {
    if (interpreter_->depth_ <= interpreter_->limits_.max_depth) {
      return absl::OkStatus();
    }
    return TemplateError(StrCat("evaluation nests more than ",
                                interpreter_->limits_.max_depth, " deep"));
  }

 private:
  Interpreter* const interpreter_;
};

// Sends output to another text for a while.
class Interpreter::OutputGuard {
 public:
  OutputGuard(Interpreter* interpreter, Text* output)
      : interpreter_(interpreter),
        previous_(std::exchange(interpreter->output_, output)) {}
  ~OutputGuard() { interpreter_->output_ = previous_; }

 private:
  Interpreter* const interpreter_;
  Text* const previous_;
};

// Opens a scope inside `parent` for a while.
class Interpreter::ScopeGuard {
 public:
  ScopeGuard(Interpreter* interpreter, ScopePtr parent)
      : interpreter_(interpreter),
        previous_(
            std::exchange(interpreter->scope_, std::make_shared<Scope>())) {
    interpreter_->scope_->parent = std::move(parent);
  }
  ~ScopeGuard() { interpreter_->scope_ = std::move(previous_); }

 private:
  Interpreter* const interpreter_;
  ScopePtr previous_;
};

Interpreter::~Interpreter() {
  for (const ScopePtr& scope : captured_scopes_) scope->names.clear();
  for (const auto& name_space : namespaces_) name_space->attributes.clear();
}

absl::StatusOr<Text> Interpreter::Render(const Body& body,
                                         const Dict& variables) {
  scope_ = std::make_shared<Scope>();
  captured_scopes_.push_back(scope_);
  for (const auto& [name, value] : variables.entries()) {
    scope_->names[name.text().bytes()] = value;
  }
  limits_.max_steps += variables.weight() * limits_.steps_per_input_byte;
  limits_.max_allocated_bytes +=
      variables.weight() * limits_.allocated_per_input_byte;
  Text output;
  const OutputGuard guard(this, &output);
  CARAVAN_RETURN_IF_ERROR(ExecuteBody(body).status());
  return output;
}

absl::Status Interpreter::Spend(int64_t steps) {
  steps_ += steps;
  if (steps_ <= limits_.max_steps) return absl::OkStatus();
  return TemplateError(
      StrCat("rendering takes more than ", limits_.max_steps, " steps"));
}

absl::Status Interpreter::Allocate(int64_t bytes) {
  allocated_bytes_ += bytes;
  if (allocated_bytes_ <= limits_.max_allocated_bytes) {
    return SpendBytes(bytes);
  }
  return TemplateError(StrCat("rendering needs more than ",
                              limits_.max_allocated_bytes, " bytes"));
}

absl::StatusOr<Text> Interpreter::Show(const Value& value) {
  // repr() looks at each character.
  const int64_t work = value.is_string() ? 1 : kCharacterWork;
  CARAVAN_RETURN_IF_ERROR(SpendBytes(value.weight() * work));
  return ToText(value);
}

absl::StatusOr<bool> Interpreter::Same(const Value& a, const Value& b) {
  CARAVAN_RETURN_IF_ERROR(SpendBytes(ComparisonWeight(a, b)));
  return Equal(a, b);
}

absl::StatusOr<bool> Interpreter::Before(const Value& a, const Value& b) {
  CARAVAN_RETURN_IF_ERROR(SpendBytes(ComparisonWeight(a, b)));
  return Less(a, b);
}

absl::StatusOr<const Value*> Interpreter::Find(const Dict& dict,
                                               const Value& key) {
  // Only strings are found by a table.
  const auto size = static_cast<int64_t>(dict.size());
  CARAVAN_RETURN_IF_ERROR(
      key.is_string()
          ? SpendBytes(key.weight())
          : SpendBytes(std::min(dict.weight(), size * key.weight())));
  return dict.Find(key);
}

std::shared_ptr<Namespace> Interpreter::NewNamespace() {
  namespaces_.push_back(std::make_shared<Namespace>());
  return namespaces_.back();
}

// --- Statements ------------------------------------------------------------

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteBody(const Body& body) {
  for (const auto& statement : body) {
    CARAVAN_ASSIGN_OR_RETURN(const Flow flow, Execute(*statement));
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Statement& node) {
  const DepthGuard depth(this);
  CARAVAN_RETURN_IF_ERROR(AtLine(depth.Check(), node.line));
  CARAVAN_RETURN_IF_ERROR(AtLine(Spend(1), node.line));
  absl::StatusOr<Flow> flow = Dispatch(node);
  if (!flow.ok()) return AtLine(flow.status(), node.line);
  return flow;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Dispatch(const Statement& node) {
  absl::Status status;
  switch (node.kind) {
    case StatementKind::kData:
      status = Output(node.text);
      break;
    case StatementKind::kOutput: {
      CARAVAN_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.value));
      CARAVAN_ASSIGN_OR_RETURN(const Text text, Show(value));
      status = Output(text);
      break;
    }
    case StatementKind::kFor:
      status = ExecuteFor(node);
      break;
    case StatementKind::kIf:
      return ExecuteIf(node);
    case StatementKind::kSet:
      status = ExecuteSet(node);
      break;
    case StatementKind::kSetBlock:
      status = ExecuteSetBlock(node);
      break;
    case StatementKind::kMacro:
      scope_->names[node.name] = MakeMacro(node);
      break;
    case StatementKind::kCall:
      status = ExecuteCall(node);
      break;
    case StatementKind::kFilter:
      status = ExecuteFilter(node);
      break;
    case StatementKind::kWith:
      return ExecuteWith(node);
    case StatementKind::kScope: {
      const ScopeGuard scope(this, scope_);
      return ExecuteBody(node.body);
    }
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  if (!status.ok()) return status;
  return Flow::kNormal;
}

absl::Status Interpreter::Output(const Text& text) {
  CARAVAN_RETURN_IF_ERROR(Allocate(static_cast<int64_t>(text.size())));
  CARAVAN_RETURN_IF_ERROR(SpendBytes(static_cast<int64_t>(text.size()) * 2));
  output_->Append(text);
  if (static_cast<int64_t>(output_->size()) <= limits_.max_output_bytes) {
    return absl::OkStatus();
  }
  return TemplateError(
      StrCat("rendering gives more than ", limits_.max_output_bytes, " bytes"));
}

absl::Status Interpreter::ExecuteFor(const Statement& node) {
  CARAVAN_ASSIGN_OR_RETURN(const Value iterable, Evaluate(*node.value));
  return RunLoop(node, iterable, /*loop_depth=*/0);
}

absl::Status Interpreter::RunLoop(const Statement& node, const Value& iterable,
                                  int loop_depth) {
  const ScopePtr outer = scope_;
  CARAVAN_ASSIGN_OR_RETURN(List items, LoopItems(node, iterable));
  if (items.empty()) {
    const ScopeGuard scope(this, outer);
    return ExecuteBody(node.otherwise).status();
  }
  const auto loop = std::make_shared<Loop>();
  loop->items = std::make_shared<const List>(std::move(items));
  loop->depth = loop_depth;
  loop->last_changed = std::make_shared<std::optional<List>>();
  if (node.recursive) loop->recurse = RecursiveLoop(node, loop_depth);
  const absl::Status status = RunIterations(node, outer, loop).status();
  loop->last_changed->reset();  // it may hold the loop itself
  return status;
}

// The items that the loop's condition lets pass.
absl::StatusOr<List> Interpreter::LoopItems(const Statement& node,
                                            const Value& iterable) {
  CARAVAN_ASSIGN_OR_RETURN(List items, Iterate(iterable));
  if (node.condition == nullptr) return items;
  List passed;
  const ScopePtr outer = scope_;
  for (Value& item : items) {
    CARAVAN_RETURN_IF_ERROR(Spend(kStepsPerScope));
    const ScopeGuard scope(this, outer);
    CARAVAN_RETURN_IF_ERROR(Assign(node.target, item));
    CARAVAN_ASSIGN_OR_RETURN(const Value passes, Evaluate(*node.condition));
    if (passes.Truthy()) passed.push_back(std::move(item));
  }
  return passed;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunIterations(
    const Statement& node, const ScopePtr& outer,
    const std::shared_ptr<Loop>& loop) {
  for (size_t i = 0; i < loop->items->size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(Spend(kStepsPerScope));
    loop->index = i;
    const ScopeGuard scope(this, outer);
    scope_->names["loop"] = Value(loop);
    CARAVAN_RETURN_IF_ERROR(Assign(node.target, (*loop->items)[i]));
    CARAVAN_ASSIGN_OR_RETURN(const Flow flow, ExecuteBody(node.body));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNormal;
}

Callable Interpreter::RecursiveLoop(const Statement& node, int loop_depth) {
  const auto call = [&node, loop_depth](Interpreter& interpreter,
                                        const Arguments& arguments) -> ValueOr {
    CARAVAN_ASSIGN_OR_RETURN(const auto bound,
                             Bind("loop", arguments, {"iterable"}));
    if (bound[0] == nullptr) return TemplateError("loop needs an iterable");
    Text text;
    const OutputGuard output(&interpreter, &text);
    CARAVAN_RETURN_IF_ERROR(
        interpreter.RunLoop(node, *bound[0], loop_depth + 1));
    return Value(std::move(text));
  };
  return {"loop", call};
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteIf(
    const Statement& node) {
  const Statement* branch = &node;
  while (true) {
    CARAVAN_ASSIGN_OR_RETURN(const Value condition, Evaluate(*branch->value));
    if (condition.Truthy()) return ExecuteBody(branch->body);
    const Body& otherwise = branch->otherwise;
    const bool is_elif =
        otherwise.size() == 1 && otherwise.front()->kind == StatementKind::kIf;
    if (!is_elif) return ExecuteBody(otherwise);
    branch = otherwise.front().get();
  }
}

absl::Status Interpreter::ExecuteSet(const Statement& node) {
  CARAVAN_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.value));
  return Assign(node.target, value);
}

absl::StatusOr<Text> Interpreter::Capture(const Body& body) {
  Text text;
  const OutputGuard output(this, &text);
  const ScopeGuard scope(this, scope_);
  CARAVAN_RETURN_IF_ERROR(ExecuteBody(body).status());
  return text;
}

absl::Status Interpreter::ExecuteSetBlock(const Statement& node) {
  CARAVAN_ASSIGN_OR_RETURN(Text text, Capture(node.body));
  Value value(std::move(text));
  if (node.value != nullptr) {
    CARAVAN_ASSIGN_OR_RETURN(value, EvaluateFilter(*node.value, &value));
  }
  return Assign(node.target, value);
}

absl::Status Interpreter::ExecuteFilter(const Statement& node) {
  CARAVAN_ASSIGN_OR_RETURN(Text text, Capture(node.body));
  const Value input(std::move(text));
  CARAVAN_ASSIGN_OR_RETURN(const Value value,
                           EvaluateFilter(*node.value, &input));
  CARAVAN_ASSIGN_OR_RETURN(const Text shown, Show(value));
  return Output(shown);
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteWith(
    const Statement& node) {
  std::vector<Value> values;
  for (const auto& [target, expression] : node.assignments) {
    CARAVAN_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    values.push_back(std::move(value));
  }
  const ScopeGuard scope(this, scope_);
  for (size_t i = 0; i < values.size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(Assign(node.assignments[i].first, values[i]));
  }
  return ExecuteBody(node.body);
}

absl::Status Interpreter::Assign(const Target& target, const Value& value) {
  if (!target.parts.empty()) {
    CARAVAN_ASSIGN_OR_RETURN(const List items, Iterate(value));
    if (items.size() != target.parts.size()) {
      return TemplateError(StrCat("cannot unpack ", items.size(),
                                  " values into ", target.parts.size()));
    }
    for (size_t i = 0; i < items.size(); ++i) {
      CARAVAN_RETURN_IF_ERROR(Assign(target.parts[i], items[i]));
    }
    return absl::OkStatus();
  }
  if (target.attribute.empty()) {
    scope_->names[target.name] = value;
    return absl::OkStatus();
  }
  Expression name{};
  name.kind = ExpressionKind::kName;
  name.name = target.name;
  CARAVAN_ASSIGN_OR_RETURN(const Value object, EvaluateName(name));
  if (!object.is_namespace()) {
    return TemplateError(StrCat("cannot set an attribute of ", target.name,
                                ", which is no namespace but ",
                                object.TypeName()));
  }
  object.name_space().attributes[target.attribute] = value;
  return absl::OkStatus();
}

Value Interpreter::MakeMacro(const Statement& node) {
  captured_scopes_.push_back(scope_);
  const std::weak_ptr<Scope> weak = scope_;
  auto macro = std::make_shared<Callable>();
  macro->name = node.name;
  macro->call = [&node, weak](Interpreter& interpreter,
                              const Arguments& arguments) -> ValueOr {
    return interpreter.CallMacro(node, weak.lock(), arguments);
  };
  return Value(std::shared_ptr<const Callable>(std::move(macro)));
}

Interpreter::ValueOr Interpreter::CallMacro(const Statement& node,
                                            const ScopePtr& scope,
                                            const Arguments& arguments) {
  const DepthGuard depth(this);
  CARAVAN_RETURN_IF_ERROR(depth.Check());
  CARAVAN_RETURN_IF_ERROR(Spend(2 * kStepsPerScope));
  Text text;
  const OutputGuard output(this, &text);
  const ScopeGuard guard(this, scope);
  CARAVAN_RETURN_IF_ERROR(BindMacro(node, arguments));
  CARAVAN_RETURN_IF_ERROR(ExecuteBody(node.body).status());
  return Value(std::move(text));
}

absl::Status Interpreter::BindMacro(const Statement& node,
                                    const Arguments& arguments) {
  const size_t count = node.parameters.size();
  List extra;
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    if (i < count) {
      scope_->names[node.parameters[i].name] = arguments.positional[i];
    } else {
      extra.push_back(arguments.positional[i]);
    }
  }
  scope_->names["varargs"] = Value::MakeTuple(std::move(extra));
  Dict others;
  for (const auto& [name, value] : arguments.named) {
    const bool known =
        std::any_of(node.parameters.begin(), node.parameters.end(),
                    [&, n = std::string_view(name)](const Parameter& p) {
                      return p.name == n;
                    });
    if (known || name == "caller") {
      scope_->names[name] = value;
    } else {
      others.Set(Value::String(name), value);
    }
  }
  scope_->names["kwargs"] = Value(std::move(others));
  for (const Parameter& parameter : node.parameters) {
    if (scope_->names.contains(parameter.name)) continue;
    Value value = Value::MakeUndefined(parameter.name);
    if (parameter.default_value != nullptr) {
      CARAVAN_ASSIGN_OR_RETURN(value, Evaluate(*parameter.default_value));
    }
    scope_->names[parameter.name] = std::move(value);
  }
  return absl::OkStatus();
}

absl::Status Interpreter::ExecuteCall(const Statement& node) {
  const Expression& call = *node.value;
  CARAVAN_ASSIGN_OR_RETURN(const Value callee, Evaluate(*call.children[0]));
  CARAVAN_ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(call));
  arguments.named.emplace_back("caller", MakeMacro(node));
  CARAVAN_ASSIGN_OR_RETURN(const Value value, Call(callee, arguments));
  CARAVAN_ASSIGN_OR_RETURN(const Text shown, Show(value));
  return Output(shown);
}

// --- Expressions -----------------------------------------------------------

Interpreter::ValueOr Interpreter::Evaluate(const Expression& node) {
  const DepthGuard depth(this);
  CARAVAN_RETURN_IF_ERROR(AtLine(depth.Check(), node.line));
  CARAVAN_RETURN_IF_ERROR(AtLine(Spend(1), node.line));
  ValueOr value = EvaluateKind(node);
  if (!value.ok()) return AtLine(value.status(), node.line);
  if (value->depth() > limits_.max_value_depth) {
    return ErrorAtLine(node.line, StrCat("value nests more than ",
                                         limits_.max_value_depth, " deep"));
  }
  return value;
}

Interpreter::ValueOr Interpreter::EvaluateKind(const Expression& node) {
  switch (node.kind) {
    case ExpressionKind::kLiteral:
      return node.literal;
    case ExpressionKind::kName:
      return EvaluateName(node);
    case ExpressionKind::kList:
    case ExpressionKind::kTuple:
      return EvaluateList(node);
    case ExpressionKind::kDict:
      return EvaluateDict(node);
    case ExpressionKind::kAttribute: {
      CARAVAN_ASSIGN_OR_RETURN(const Value base, Evaluate(*node.children[0]));
      return Attribute(base, node.name);
    }
    case ExpressionKind::kItem:
      return EvaluateItem(node);
    case ExpressionKind::kSlice:
      return EvaluateSlice(node);
    case ExpressionKind::kCall:
      return EvaluateCall(node);
    case ExpressionKind::kFilter:
      return EvaluateFilter(node, /*input=*/nullptr);
    case ExpressionKind::kTest:
      return EvaluateTest(node);
    case ExpressionKind::kNot: {
      CARAVAN_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.children[0]));
      return Value(!value.Truthy());
    }
    case ExpressionKind::kNegative:
      return EvaluateSign(node, /*negative=*/true);
    case ExpressionKind::kPositive:
      return EvaluateSign(node, /*negative=*/false);
    case ExpressionKind::kBinary:
      return EvaluateBinary(node);
    case ExpressionKind::kConcat:
      return EvaluateConcat(node);
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr: {
      CARAVAN_ASSIGN_OR_RETURN(Value left, Evaluate(*node.children[0]));
      const bool decided = left.Truthy() == (node.kind == ExpressionKind::kOr);
      if (decided) return left;
      return Evaluate(*node.children[1]);
    }
    case ExpressionKind::kCompare:
      return EvaluateCompare(node);
    case ExpressionKind::kConditional:
      return EvaluateConditional(node);
  }
  return TemplateError("unknown expression");
}

Interpreter::ValueOr Interpreter::EvaluateName(const Expression& node) {
  int64_t scopes = 0;
  for (const Scope* scope = scope_.get(); scope != nullptr;
       scope = scope->parent.get()) {
    ++scopes;
    const auto it = scope->names.find(node.name);
    if (it == scope->names.end()) continue;
    CARAVAN_RETURN_IF_ERROR(Spend(scopes / 8));
    return it->second;
  }
  CARAVAN_RETURN_IF_ERROR(Spend(scopes / 8));
  Value function = GlobalFunction(node.name);
  if (!function.is_undefined()) return function;
  return Value::MakeUndefined(node.name);
}

Interpreter::ValueOr Interpreter::EvaluateList(const Expression& node) {
  List items;
  for (const ExpressionPtr& child : node.children) {
    CARAVAN_ASSIGN_OR_RETURN(Value item, Evaluate(*child));
    items.push_back(std::move(item));
  }
  CARAVAN_RETURN_IF_ERROR(
      Allocate(static_cast<int64_t>(items.size() * sizeof(Value))));
  return node.kind == ExpressionKind::kTuple
             ? Value::MakeTuple(std::move(items))
             : Value::MakeList(std::move(items));
}

Interpreter::ValueOr Interpreter::EvaluateDict(const Expression& node) {
  Dict dict;
  for (size_t i = 0; i < node.children.size(); i += 2) {
    CARAVAN_ASSIGN_OR_RETURN(Value key, Evaluate(*node.children[i]));
    if (key.is_dict() || (key.is_sequence() && !key.is_tuple())) {
      return TemplateError(StrCat("a ", key.TypeName(), " cannot be a key"));
    }
    CARAVAN_ASSIGN_OR_RETURN(Value value, Evaluate(*node.children[i + 1]));
    CARAVAN_RETURN_IF_ERROR(Find(dict, key).status());  // as Set does
    dict.Set(std::move(key), std::move(value));
  }
  return Value(std::move(dict));
}

Interpreter::ValueOr Interpreter::EvaluateItem(const Expression& node) {
  CARAVAN_ASSIGN_OR_RETURN(const Value base, Evaluate(*node.children[0]));
  CARAVAN_ASSIGN_OR_RETURN(const Value key, Evaluate(*node.children[1]));
  return Item(base, key);
}

Interpreter::ValueOr Interpreter::EvaluateSlice(const Expression& node) {
  std::vector<Value> values;
  for (const ExpressionPtr& child : node.children) {
    Value value = Value::MakeNone();
    if (child != nullptr) {
      CARAVAN_ASSIGN_OR_RETURN(value, Evaluate(*child));
    }
    values.push_back(std::move(value));
  }
  return Slice(*this, values[0], values[1], values[2], values[3]);
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(
    const Expression& node) {
  Arguments arguments;
  for (size_t i = 1; i < node.children.size(); ++i) {
    CARAVAN_ASSIGN_OR_RETURN(Value value, Evaluate(*node.children[i]));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, child] : node.named) {
    CARAVAN_ASSIGN_OR_RETURN(Value value, Evaluate(*child));
    arguments.named.emplace_back(name, std::move(value));
  }
  return arguments;
}

Interpreter::ValueOr Interpreter::EvaluateCall(const Expression& node) {
  CARAVAN_ASSIGN_OR_RETURN(const Value callee, Evaluate(*node.children[0]));
  CARAVAN_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(node));
  return Call(callee, arguments);
}

Interpreter::ValueOr Interpreter::EvaluateFilter(const Expression& node,
                                                 const Value* input) {
  Value own;
  if (node.children[0] != nullptr) {
    // In a filter block only the innermost filter takes the block's text.
    if (input != nullptr) {
      CARAVAN_ASSIGN_OR_RETURN(own, EvaluateFilter(*node.children[0], input));
    } else {
      CARAVAN_ASSIGN_OR_RETURN(own, Evaluate(*node.children[0]));
    }
    input = &own;
  }
  CARAVAN_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(node));
  CARAVAN_ASSIGN_OR_RETURN(Value value,
                           ApplyFilter(*this, node.name, *input, arguments));
  if (value.is_string()) {
    CARAVAN_RETURN_IF_ERROR(
        Allocate(static_cast<int64_t>(value.text().size())));
  }
  return value;
}

Interpreter::ValueOr Interpreter::EvaluateTest(const Expression& node) {
  CARAVAN_ASSIGN_OR_RETURN(const Value input, Evaluate(*node.children[0]));
  CARAVAN_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(node));
  CARAVAN_ASSIGN_OR_RETURN(const bool holds,
                           ApplyTest(*this, node.name, input, arguments));
  return Value(holds);
}

Interpreter::ValueOr Interpreter::EvaluateBinary(const Expression& node) {
  CARAVAN_ASSIGN_OR_RETURN(const Value left, Evaluate(*node.children[0]));
  CARAVAN_ASSIGN_OR_RETURN(const Value right, Evaluate(*node.children[1]));
  return Arithmetic(*this, node.name, left, right);
}

Interpreter::ValueOr Interpreter::EvaluateConcat(const Expression& node) {
  Text text;
  for (const ExpressionPtr& child : node.children) {
    CARAVAN_ASSIGN_OR_RETURN(const Value value, Evaluate(*child));
    CARAVAN_ASSIGN_OR_RETURN(const Text shown, Show(value));
    CARAVAN_RETURN_IF_ERROR(Allocate(static_cast<int64_t>(shown.size())));
    text.Append(shown);
  }
  return Value(std::move(text));
}

Interpreter::ValueOr Interpreter::EvaluateCompare(const Expression& node) {
  CARAVAN_ASSIGN_OR_RETURN(Value left, Evaluate(*node.children[0]));
  for (size_t i = 0; i < node.operators.size(); ++i) {
    CARAVAN_ASSIGN_OR_RETURN(Value right, Evaluate(*node.children[i + 1]));
    CARAVAN_ASSIGN_OR_RETURN(const bool holds,
                             Compare(node.operators[i], left, right));
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

absl::StatusOr<bool> Interpreter::Compare(std::string_view op,
                                          const Value& left,
                                          const Value& right) {
  if (op == "==") return Same(left, right);
  if (op == "in") return Contains(right, left);
  if (op == "<") return Before(left, right);
  if (op == ">") return Before(right, left);
  if (op == "!=") {
    CARAVAN_ASSIGN_OR_RETURN(const bool same, Same(left, right));
    return !same;
  }
  if (op == "not in") {
    CARAVAN_ASSIGN_OR_RETURN(const bool contains, Contains(right, left));
    return !contains;
  }
  // <= and >= of numbers are not the negation of > and < for NaN, which a
  // template cannot make.
  CARAVAN_ASSIGN_OR_RETURN(const bool reverse, op == "<="
                                                   ? Before(right, left)
                                                   : Before(left, right));
  return !reverse;
}

Interpreter::ValueOr Interpreter::EvaluateConditional(const Expression& node) {
  CARAVAN_ASSIGN_OR_RETURN(const Value condition, Evaluate(*node.children[0]));
  if (condition.Truthy()) return Evaluate(*node.children[1]);
  if (node.children[2] != nullptr) return Evaluate(*node.children[2]);
  return Value::MakeUndefined("an if expression without else");
}

Interpreter::ValueOr Interpreter::EvaluateSign(const Expression& node,
                                               bool negative) {
  CARAVAN_ASSIGN_OR_RETURN(const Value value, Evaluate(*node.children[0]));
  if (!value.is_number()) {
    return TemplateError(StrCat("a ", value.TypeName(), " has no sign"));
  }
  return Arithmetic(*this, negative ? "-" : "+", Value(int64_t{0}), value);
}

// --- Objects ---------------------------------------------------------------

Interpreter::ValueOr Interpreter::Call(const Value& callee,
                                       const Arguments& arguments) {
  if (callee.is_callable()) return callee.callable().call(*this, arguments);
  if (callee.is_loop() && callee.loop().recurse.call) {
    return callee.loop().recurse.call(*this, arguments);
  }
  if (callee.is_undefined()) {
    return TemplateError(
        StrCat("'", callee.undefined_name(), "' is undefined"));
  }
  return TemplateError(StrCat("a ", callee.TypeName(), " cannot be called"));
}

Interpreter::ValueOr Interpreter::Attribute(const Value& value,
                                            std::string_view name) {
  if (value.is_undefined()) {
    return TemplateError(StrCat("'", value.undefined_name(),
                                "' is undefined and has no '", name, "'"));
  }
  if (value.is_namespace()) {
    const auto& attributes = value.name_space().attributes;
    const auto it = attributes.find(std::string(name));
    if (it != attributes.end()) return it->second;
    return Value::MakeUndefined(std::string(name));
  }
  if (value.is_loop()) return LoopAttribute(value, name);
  Value method = Method(value, name);
  if (!method.is_undefined()) return method;
  if (value.is_dict()) {
    if (const Value* const member = value.dict().Find(name)) return *member;
  }
  return Value::MakeUndefined(std::string(name));
}

Interpreter::ValueOr Interpreter::Item(const Value& value, const Value& key) {
  if (value.is_undefined()) {
    return TemplateError(StrCat("'", value.undefined_name(), "' is undefined"));
  }
  if (value.is_dict()) {
    CARAVAN_ASSIGN_OR_RETURN(const Value* const member,
                             Find(value.dict(), key));
    if (member != nullptr) return *member;
  }
  if (key.is_number() && !key.is_float()) {
    const bool is_string = value.is_string();
    if (is_string) {
      CARAVAN_RETURN_IF_ERROR(SpendBytes(value.weight() * kCharacterWork));
    }
    if (is_string || value.is_sequence()) {
      const std::vector<size_t> offsets =
          is_string ? value.text().CharacterOffsets() : std::vector<size_t>();
      const auto count = static_cast<int64_t>(is_string ? offsets.size() - 1
                                                        : value.items().size());
      const int64_t index =
          key.as_int() < 0 ? key.as_int() + count : key.as_int();
      if (index < 0 || index >= count) {
        return Value::MakeUndefined(StrCat("element ", key.as_int()));
      }
      if (!is_string) return value.items()[index];
      return Value(value.text().Slice(offsets[index],
                                      offsets[index + 1] - offsets[index]));
    }
  }
  if (key.is_string()) {
    if (value.is_dict()) return Method(value, key.text().bytes());
    return Attribute(value, key.text().bytes());
  }
  return Value::MakeUndefined(Repr(key));
}

Interpreter::ValueOr Interpreter::LoopAttribute(const Value& value,
                                                std::string_view name) {
  const Loop& loop = value.loop();
  const auto index = static_cast<int64_t>(loop.index);
  const auto count = static_cast<int64_t>(loop.items->size());
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(count - index);
  if (name == "revindex0") return Value(count - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index == count - 1);
  if (name == "length") return Value(count);
  if (name == "depth") return Value(int64_t{loop.depth} + 1);
  if (name == "depth0") return Value(int64_t{loop.depth});
  if (name == "previtem" && index > 0) return (*loop.items)[index - 1];
  if (name == "nextitem" && index + 1 < count) return (*loop.items)[index + 1];
  auto method = std::make_shared<Callable>();
  method->name = std::string(name);
  if (name == "cycle") {
    method->call = [index](Interpreter&, const Arguments& a) -> ValueOr {
      if (a.positional.empty()) return TemplateError("cycle needs values");
      return a.positional[index % a.positional.size()];
    };
    return Value(std::shared_ptr<const Callable>(std::move(method)));
  }
  if (name == "changed") {
    const auto last = loop.last_changed;
    method->call = [last](Interpreter& interpreter,
                          const Arguments& a) -> ValueOr {
      bool same = false;
      if (last->has_value()) {
        CARAVAN_ASSIGN_OR_RETURN(
            same, interpreter.Same(Value::MakeList(**last),
                                   Value::MakeList(a.positional)));
      }
      if (!same) *last = a.positional;
      return Value(!same);
    };
    return Value(std::shared_ptr<const Callable>(std::move(method)));
  }
  return Value::MakeUndefined(StrCat("loop.", name));
}

absl::StatusOr<List> Interpreter::Iterate(const Value& value) {
  if (value.is_undefined()) return List();
  List items;
  if (value.is_sequence()) {
    items = value.items();
  } else if (value.is_dict()) {
    for (const auto& [key, member] : value.dict().entries()) {
      items.push_back(key);
    }
  } else if (value.is_string()) {
    const std::vector<size_t> offsets = value.text().CharacterOffsets();
    CARAVAN_RETURN_IF_ERROR(Allocate(
        static_cast<int64_t>(offsets.size() * (sizeof(Value) + sizeof(Text)))));
    for (size_t i = 0; i + 1 < offsets.size(); ++i) {
      items.push_back(
          Value(value.text().Slice(offsets[i], offsets[i + 1] - offsets[i])));
    }
  } else {
    return TemplateError(StrCat("a ", value.TypeName(), " is not iterable"));
  }
  CARAVAN_RETURN_IF_ERROR(
      Allocate(static_cast<int64_t>(items.size() * sizeof(Value))));
  return items;
}

absl::StatusOr<bool> Interpreter::Contains(const Value& container,
                                           const Value& item) {
  if (container.is_undefined()) return false;
  if (container.is_string()) {
    if (!item.is_string()) {
      return TemplateError(
          StrCat("a string contains strings, no ", item.TypeName()));
    }
    CARAVAN_RETURN_IF_ERROR(SpendBytes(container.weight() * 4));
    return FindBytes(container.text().bytes(), item.text().bytes()) !=
           std::string::npos;
  }
  if (container.is_dict()) {
    CARAVAN_ASSIGN_OR_RETURN(const Value* const member,
                             Find(container.dict(), item));
    return member != nullptr;
  }
  if (container.is_sequence()) {
    const List& items = container.items();
    CARAVAN_RETURN_IF_ERROR(
        SpendBytes(static_cast<int64_t>(items.size() * sizeof(Value))));
    for (const Value& member : items) {
      CARAVAN_ASSIGN_OR_RETURN(const bool same, Same(member, item));
      if (same) return true;
    }
    return false;
  }
  return TemplateError(StrCat("a ", container.TypeName(), " is no container"));
}

}  // namespace caravan::jinja
