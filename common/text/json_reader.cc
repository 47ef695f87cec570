#include "common/text/json_reader.h"

#include <utility>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/tokenizer_model.h"

namespace caravan::text {
namespace {

const nlohmann::json& Null() {
  static const auto& kNull = *new nlohmann::json(nullptr);
  return kNull;
}

// Stops where the first syntax error is and remembers its offset. Also bounds
// the depth: values nest 8 deep in the files that exist.
class SyntaxCheck : public nlohmann::json::json_sax_t {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool key(string_t&) override { return true; }
  bool start_object(size_t) override { return Enter(); }
  bool start_array(size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }
  bool parse_error(size_t offset, const std::string&,
                   const nlohmann::json::exception&) override {
    problem_ = StrCat("is not valid JSON at offset ", offset);
    return false;
  }
  const std::string& problem() const { return problem_; }

 private:
  static constexpr int kMaxDepth = 64;
  bool Enter() {
    if (++depth_ <= kMaxDepth) return true;
    problem_ = StrCat("is nested more than ", kMaxDepth, " deep");
    return false;
  }
  bool Leave() {
    --depth_;
    return true;
  }
  int depth_ = 0;
  std::string problem_;
};

}  // namespace

absl::StatusOr<nlohmann::json> JsonReader::Parse(const std::string& text,
                                                 std::string_view file) {
  SyntaxCheck check;
  if (!nlohmann::json::sax_parse(text, &check)) {
    return FileError(file, check.problem());
  }
  nlohmann::json parsed =
      nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return FileError(file, "is not valid JSON");
  return parsed;
}

absl::Status JsonReader::Error(std::string_view what) const {
  if (path_.empty()) return FileError(file_, what);
  return FileError(file_, StrCat(path_, " ", what));
}

absl::StatusOr<JsonReader> JsonReader::Get(const char* name) const {
  if (!value_->is_object()) return Error("must be an object");
  const auto it = value_->find(name);
  std::string path = path_.empty() ? name : StrCat(path_, ".", name);
  return JsonReader(it == value_->end() ? Null() : *it, file_, std::move(path));
}

absl::StatusOr<std::vector<JsonReader>> JsonReader::Elements() const {
  if (!value_->is_array()) return Error("must be an array");
  std::vector<JsonReader> elements;
  elements.reserve(value_->size());
  for (const nlohmann::json& element : *value_) {
    elements.emplace_back(element, file_,
                          StrCat(path_, "[", elements.size(), "]"));
  }
  return elements;
}

absl::StatusOr<std::string> JsonReader::String() const {
  if (!value_->is_string()) return Error("must be a string");
  return value_->get_ref<const std::string&>();
}

absl::StatusOr<int64_t> JsonReader::Integer(int64_t least, int64_t most) const {
  const std::string range = StrCat("must be an integer in [", least, ", ", most,
                                   "]; got ", value_->type_name());
  if (!value_->is_number_integer()) return Error(range);
  const bool too_big = value_->is_number_unsigned() &&
                       value_->get<uint64_t>() > uint64_t{INT64_MAX};
  const int64_t number = too_big ? INT64_MAX : value_->get<int64_t>();
  if (too_big || number < least || number > most) {
    return Error(StrCat("must be in [", least, ", ", most, "]; got ", number));
  }
  return number;
}

absl::StatusOr<bool> JsonReader::Bool() const {
  if (!value_->is_boolean()) return Error("must be true or false");
  return value_->get<bool>();
}

absl::StatusOr<std::string> JsonReader::StringOr(
    const char* name, std::string_view otherwise) const {
  CARAVAN_ASSIGN_OR_RETURN(const JsonReader member, Get(name));
  if (member.is_null()) return std::string(otherwise);
  return member.String();
}

absl::StatusOr<bool> JsonReader::BoolOr(const char* name,
                                        bool otherwise) const {
  CARAVAN_ASSIGN_OR_RETURN(const JsonReader member, Get(name));
  if (member.is_null()) return otherwise;
  return member.Bool();
}

}  // namespace caravan::text
