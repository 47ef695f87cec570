// What a template computes with: Python's values, as far as templates see
// them. All are immutable but namespaces.
#ifndef CARAVAN_SERVICES_TOKENIZER_JINJA_VALUE_H_
#define CARAVAN_SERVICES_TOKENIZER_JINJA_VALUE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "services/tokenizer/jinja/text.h"

namespace caravan::jinja {

class Dict;
class Interpreter;
class Value;
struct Callable;
struct Loop;
struct Namespace;
using List = std::vector<Value>;

class Value {
 public:
  // A name that stands for nothing; `what` says so in messages.
  struct Undefined {
    std::string what;
  };
  struct None {};

  Value() : data_(Undefined{"value"}) {}
  explicit Value(bool b) : data_(b) {}
  explicit Value(int64_t i) : data_(i) {}
  explicit Value(double d) : data_(d) {}
  explicit Value(Text text)
      : data_(std::make_shared<const Text>(std::move(text))) {}
  explicit Value(Dict dict);
  explicit Value(std::shared_ptr<Namespace> n) : data_(std::move(n)) {}
  explicit Value(std::shared_ptr<const Callable> c) : data_(std::move(c)) {}
  explicit Value(std::shared_ptr<const Loop> l) : data_(std::move(l)) {}
  explicit Value(std::shared_ptr<Loop> l)
      : data_(std::shared_ptr<const Loop>(std::move(l))) {}
  // A string that came from a value (not from the template).
  static Value String(std::string_view bytes) {
    return Value(Text(bytes, Origin::kValue));
  }
  static Value MakeUndefined(std::string what) {
    Value value;
    value.data_ = Undefined{std::move(what)};
    return value;
  }
  static Value MakeNone() {
    Value value;
    value.data_ = None{};
    return value;
  }
  static Value MakeList(List items) {
    Value value;
    value.SetSequence(std::move(items), /*is_tuple=*/false);
    return value;
  }
  static Value MakeTuple(List items) {
    Value value;
    value.SetSequence(std::move(items), /*is_tuple=*/true);
    return value;
  }

  bool is_undefined() const { return Holds<Undefined>(); }
  bool is_none() const { return Holds<None>(); }
  bool is_bool() const { return Holds<bool>(); }
  bool is_int() const { return Holds<int64_t>(); }
  bool is_float() const { return Holds<double>(); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  bool is_string() const { return Holds<std::shared_ptr<const Text>>(); }
  bool is_sequence() const { return Holds<Sequence>(); }
  bool is_tuple() const {
    return is_sequence() && std::get<Sequence>(data_).is_tuple;
  }
  bool is_dict() const { return Holds<std::shared_ptr<const Dict>>(); }
  bool is_namespace() const { return Holds<std::shared_ptr<Namespace>>(); }
  bool is_callable() const { return Holds<std::shared_ptr<const Callable>>(); }
  bool is_loop() const { return Holds<std::shared_ptr<const Loop>>(); }

  // Each may only be asked of its own kind.
  const std::string& undefined_name() const {
    return std::get<Undefined>(data_).what;
  }
  bool as_bool() const { return std::get<bool>(data_); }
  // Also of a bool.
  int64_t as_int() const {
    return is_bool() ? as_bool() : std::get<int64_t>(data_);
  }
  // Of any number.
  double as_float() const {
    return is_float() ? std::get<double>(data_) : static_cast<double>(as_int());
  }
  const Text& text() const {
    return *std::get<std::shared_ptr<const Text>>(data_);
  }
  const List& items() const { return *shared_items(); }
  const std::shared_ptr<const List>& shared_items() const {
    return std::get<Sequence>(data_).items;
  }
  const Dict& dict() const {
    return *std::get<std::shared_ptr<const Dict>>(data_);
  }
  Namespace& name_space() const {
    return *std::get<std::shared_ptr<Namespace>>(data_);
  }
  const Callable& callable() const {
    return *std::get<std::shared_ptr<const Callable>>(data_);
  }
  const Loop& loop() const {
    return *std::get<std::shared_ptr<const Loop>>(data_);
  }

  // How deep lists and dicts nest; 0 for everything else.
  int depth() const;

  // Bytes that going through the value and all that is in it touches, about;
  // what a value holds twice counts twice. Known without going through it.
  int64_t weight() const;

  bool Truthy() const;
  // "str", "int", "list", ... as Python names them.
  std::string_view TypeName() const;

 private:
  struct Sequence {
    std::shared_ptr<const List> items;
    bool is_tuple;
    int depth;
    int64_t weight;
  };

  void SetSequence(List items, bool is_tuple);

  template <typename T>
  bool Holds() const {
    return std::holds_alternative<T>(data_);
  }

  std::variant<Undefined, None, bool, int64_t, double,
               std::shared_ptr<const Text>, Sequence,
               std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
               std::shared_ptr<const Callable>, std::shared_ptr<const Loop>>
      data_;
};

// Arguments of a call, already evaluated.
struct Arguments {
  List positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Something that can be called: a macro, a function, a method of a value.
struct Callable {
  std::string name;
  std::function<absl::StatusOr<Value>(Interpreter&, const Arguments&)> call;
};

// Keys in the order of insertion.
class Dict {
 public:
  // Replaces the value of a key that is there.
  void Set(Value key, Value value);
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
  const std::vector<std::pair<Value, Value>>& entries() const {
    return entries_;
  }
  size_t size() const { return entries_.size(); }
  int depth() const { return depth_; }
  int64_t weight() const { return weight_; }

 private:
  int depth_ = 1;
  int64_t weight_ = 0;  // of replaced values too
  std::vector<std::pair<Value, Value>> entries_;
  absl::flat_hash_map<std::string, size_t> text_keys_;
};

// `namespace(...)`: the one thing that a template can change from an inner
// scope.
struct Namespace {
  std::map<std::string, Value> attributes;
};

// The `loop` of a for.
struct Loop {
  std::shared_ptr<const List> items;
  size_t index = 0;
  int depth = 0;  // of recursive loops, from 0
  std::shared_ptr<std::optional<List>> last_changed;  // of loop.changed()
  Callable recurse;  // `call` is empty where the loop is not recursive
};

// Python's ==. Values of different kinds are not equal; numbers compare by
// value.
bool Equal(const Value& a, const Value& b);

// Python's <; an error where the kinds have no order.
absl::StatusOr<bool> Less(const Value& a, const Value& b);

// An upper bound of the bytes that Equal and Less look at.
int64_t ComparisonWeight(const Value& a, const Value& b);

// Python's str() and repr(), bounded: nothing nests deeper than the values
// that JSON can give. Strings keep their origins in ToText.
Text ToText(const Value& value);
std::string Repr(const Value& value);

// Python's repr of a float.
std::string FloatText(double value);

// json.dumps without ASCII or HTML escaping. Errors: a value that is no JSON,
// more than max_bytes.
struct JsonStyle {
  std::optional<int> indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
  bool ensure_ascii = false;
  int64_t max_bytes = INT64_MAX;
};
absl::StatusOr<std::string> ToJson(const Value& value, const JsonStyle& style);

// A JSON text; all strings come from a value, numbers beyond int64 become
// floats, keys keep their order. Error: kMalformedJson with the offset.
absl::StatusOr<Value> ParseJson(std::string_view json);

}  // namespace caravan::jinja

#endif  // CARAVAN_SERVICES_TOKENIZER_JINJA_VALUE_H_
