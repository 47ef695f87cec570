// ParseJson: JSON text to template values.
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "common/status/errors.h"
#include "common/strings.h"
#include "services/tokenizer/jinja/value.h"

namespace caravan::jinja {
namespace {

class Builder : public nlohmann::json::json_sax_t {
 public:
  bool null() override { return Add(Value::MakeNone()); }
  bool boolean(bool b) override { return Add(Value(b)); }
  bool number_integer(number_integer_t i) override {
    return Add(Value(int64_t{i}));
  }
  bool number_unsigned(number_unsigned_t u) override {
    if (u > uint64_t{INT64_MAX}) return Add(Value(static_cast<double>(u)));
    return Add(Value(static_cast<int64_t>(u)));
  }
  bool number_float(number_float_t d, const string_t&) override {
    return Add(Value(d));
  }
  bool string(string_t& s) override { return Add(Value::String(s)); }
  bool binary(binary_t&) override { return false; }
  bool key(string_t& key) override {
    open_.back().key = key;
    return true;
  }
  bool start_object(size_t) override { return Open(/*is_dict=*/true); }
  bool start_array(size_t) override { return Open(/*is_dict=*/false); }
  bool end_object() override {
    Dict dict = std::move(open_.back().dict);
    open_.pop_back();
    return Add(Value(std::move(dict)));
  }
  bool end_array() override {
    List items = std::move(open_.back().items);
    open_.pop_back();
    return Add(Value::MakeList(std::move(items)));
  }
  bool parse_error(size_t offset, const std::string&,
                   const nlohmann::json::exception&) override {
    problem_ = StrCat("JSON is not valid at offset ", offset);
    return false;
  }

  Value Take() { return std::move(root_); }
  const std::string& problem() const { return problem_; }

 private:
  static constexpr size_t kMaxDepth = 64;

  struct Container {
    bool is_dict;
    std::string key;
    Dict dict;
    List items;
  };

  bool Open(bool is_dict) {
    if (open_.size() >= kMaxDepth) {
      problem_ = StrCat("JSON must nest at most ", kMaxDepth, " deep");
      return false;
    }
    open_.push_back({is_dict, {}, {}, {}});
    return true;
  }

  bool Add(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().is_dict) {
      open_.back().dict.Set(Value::String(open_.back().key), std::move(value));
    } else {
      open_.back().items.push_back(std::move(value));
    }
    return true;
  }

  std::vector<Container> open_;
  Value root_;
  std::string problem_ = "JSON is not valid";
};

}  // namespace

absl::StatusOr<Value> ParseJson(std::string_view json) {
  Builder builder;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &builder)) {
    return MakeError(Reason::kMalformedJson, builder.problem());
  }
  return builder.Take();
}

}  // namespace caravan::jinja
