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

}  // namespace

absl::StatusOr<nlohmann::json> JsonReader::Parse(const std::string& text,
                                                 std::string_view file) {
  JsonTreeBuilder builder;
  if (!nlohmann::json::sax_parse(text, &builder)) {
    return FileError(file, builder.problem());
  }
  return builder.Take();
}

bool JsonTreeBuilder::Put(nlohmann::json value) {
  Place() = std::move(value);
  return true;
}

nlohmann::json& JsonTreeBuilder::Place() {
  if (open_.empty()) return root_;
  nlohmann::json& parent = *open_.back();
  if (parent.is_object()) return parent[key_];
  return parent.emplace_back();
}

bool JsonTreeBuilder::Open(nlohmann::json empty) {
  if (!Enter()) return false;
  nlohmann::json& place = Place();
  place = std::move(empty);
  open_.push_back(&place);
  return true;
}

bool JsonTreeBuilder::Close() {
  --depth_;
  open_.pop_back();
  return true;
}

bool JsonTreeBuilder::Enter() {
  constexpr int kMaxDepth = 64;  // values nest 8 deep in the files that exist
  if (++depth_ <= kMaxDepth) return true;
  return Fail(StrCat("is nested more than ", kMaxDepth, " deep"));
}

bool JsonTreeBuilder::parse_error(size_t offset, const std::string&,
                                  const nlohmann::json::exception&) {
  return Fail(StrCat("is not valid JSON at offset ", offset));
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
