// Runs a parsed template, within limits of time, depth and memory.
#ifndef CARAVAN_SERVICES_TOKENIZER_JINJA_INTERPRETER_H_
#define CARAVAN_SERVICES_TOKENIZER_JINJA_INTERPRETER_H_

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/tokenizer/jinja/ast.h"
#include "services/tokenizer/jinja/value.h"

namespace caravan::jinja {

// Bounds of one rendering; all positive. Work and memory may grow with the
// variables, so that a long conversation is no reason to fail.
struct Limits {
  // Expressions and statements, and a step for each kBytesPerStep bytes of
  // values that they go through: about 100 ms at most.
  int64_t max_steps = 1'000'000;
  int64_t max_allocated_bytes = 1 << 26;  // of all strings and lists made
  int64_t steps_per_input_byte = 1;
  int64_t allocated_per_input_byte = 32;
  int64_t max_output_bytes = 1 << 24;
  int max_depth = 1000;       // of evaluation
  int max_value_depth = 200;  // of lists in lists
};

// What one step reads or copies.
inline constexpr int64_t kBytesPerStep = 64;
// How much more it takes to look at characters than to copy bytes.
inline constexpr int64_t kCharacterWork = 8;

// kTemplateError without a line; the interpreter adds it.
absl::Status TemplateError(std::string_view what);

// The arguments of a call by parameter, null where not given. Errors: too
// many, unknown, given twice.
absl::StatusOr<std::vector<const Value*>> Bind(
    std::string_view function, const Arguments& arguments,
    std::initializer_list<std::string_view> parameters);

// Not thread-safe; renders once.
class Interpreter {
 public:
  // `now` is what strftime_now shows, in `zone`.
  Interpreter(const Limits& limits, absl::Time now, absl::TimeZone zone)
      : limits_(limits), now_(now), zone_(zone) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // Errors: kTemplateError with the line, or with the message of the
  // template's raise_exception.
  absl::StatusOr<Text> Render(const Body& body, const Dict& variables);

  // The rest is for filters, tests, methods and functions.

  // Counts work or memory; fails when the limit is reached. Memory is work,
  // too.
  absl::Status Spend(int64_t steps);
  absl::Status SpendBytes(int64_t bytes) {
    return Spend(bytes / kBytesPerStep);
  }
  absl::Status Allocate(int64_t bytes);

  // ToText, Equal and Less with their work counted before it is done: what
  // holds something twice can be small and yet take for ever.
  absl::StatusOr<Text> Show(const Value& value);
  absl::StatusOr<bool> Same(const Value& a, const Value& b);
  absl::StatusOr<bool> Before(const Value& a, const Value& b);
  // Dict::Find.
  absl::StatusOr<const Value*> Find(const Dict& dict, const Value& key);

  absl::StatusOr<Value> Call(const Value& callee, const Arguments& arguments);
  // `value.name`: a method, then a member.
  absl::StatusOr<Value> Attribute(const Value& value, std::string_view name);
  // `value[key]`: a member, then a method.
  absl::StatusOr<Value> Item(const Value& value, const Value& key);
  // What a for goes through: elements, keys, characters.
  absl::StatusOr<List> Iterate(const Value& value);
  absl::StatusOr<bool> Contains(const Value& container, const Value& item);

  // A namespace object, forgotten at the end of the rendering.
  std::shared_ptr<Namespace> NewNamespace();

  const Limits& limits() const { return limits_; }
  absl::Time now() const { return now_; }
  absl::TimeZone zone() const { return zone_; }

 private:
  struct Scope {
    std::shared_ptr<Scope> parent;
    absl::flat_hash_map<std::string, Value> names;
  };
  using ScopePtr = std::shared_ptr<Scope>;
  enum class Flow { kNormal, kBreak, kContinue };
  using ValueOr = absl::StatusOr<Value>;
  class DepthGuard;
  class OutputGuard;
  class ScopeGuard;

  // Statements.
  absl::StatusOr<Flow> ExecuteBody(const Body& body);
  absl::StatusOr<Flow> Execute(const Statement& node);
  absl::StatusOr<Flow> Dispatch(const Statement& node);
  absl::Status Output(const Text& text);
  absl::Status ExecuteFor(const Statement& node);
  absl::Status RunLoop(const Statement& node, const Value& iterable,
                       int loop_depth);
  absl::StatusOr<List> LoopItems(const Statement& node, const Value& iterable);
  absl::StatusOr<Flow> RunIterations(const Statement& node,
                                     const ScopePtr& outer,
                                     const std::shared_ptr<Loop>& loop);
  Callable RecursiveLoop(const Statement& node, int loop_depth);
  absl::StatusOr<Flow> ExecuteIf(const Statement& node);
  absl::Status ExecuteSet(const Statement& node);
  absl::Status ExecuteSetBlock(const Statement& node);
  absl::Status ExecuteCall(const Statement& node);
  absl::Status ExecuteFilter(const Statement& node);
  absl::StatusOr<Flow> ExecuteWith(const Statement& node);
  // What `body` writes, in a scope of its own.
  absl::StatusOr<Text> Capture(const Body& body);
  absl::Status Assign(const Target& target, const Value& value);
  Value MakeMacro(const Statement& node);
  ValueOr CallMacro(const Statement& node, const ScopePtr& scope,
                    const Arguments& arguments);
  absl::Status BindMacro(const Statement& node, const Arguments& arguments);

  // Expressions.
  ValueOr Evaluate(const Expression& node);
  ValueOr EvaluateKind(const Expression& node);
  ValueOr EvaluateName(const Expression& node);
  ValueOr EvaluateList(const Expression& node);
  ValueOr EvaluateDict(const Expression& node);
  ValueOr EvaluateItem(const Expression& node);
  ValueOr EvaluateSlice(const Expression& node);
  ValueOr EvaluateCall(const Expression& node);
  ValueOr EvaluateFilter(const Expression& node, const Value* input);
  ValueOr EvaluateTest(const Expression& node);
  ValueOr EvaluateBinary(const Expression& node);
  ValueOr EvaluateConcat(const Expression& node);
  ValueOr EvaluateCompare(const Expression& node);
  ValueOr EvaluateConditional(const Expression& node);
  ValueOr EvaluateSign(const Expression& node, bool negative);
  absl::StatusOr<bool> Compare(std::string_view op, const Value& left,
                               const Value& right);
  absl::StatusOr<Arguments> EvaluateArguments(const Expression& node);
  ValueOr LoopAttribute(const Value& value, std::string_view name);

  Limits limits_;
  const absl::Time now_;
  const absl::TimeZone zone_;
  int64_t steps_ = 0;
  int64_t allocated_bytes_ = 0;
  int depth_ = 0;
  ScopePtr scope_;
  Text* output_ = nullptr;
  // What may hold itself by way of a macro or a namespace; emptied at the end.
  std::vector<ScopePtr> captured_scopes_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace caravan::jinja

#endif  // CARAVAN_SERVICES_TOKENIZER_JINJA_INTERPRETER_H_
