// Reading JSON of a model directory: every wrong type is an error that names
// file and field.
#ifndef CARAVAN_COMMON_TEXT_JSON_READER_H_
#define CARAVAN_COMMON_TEXT_JSON_READER_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan::text {

// A value inside a parsed file and its path, such as "model.merges[3]". Cheap
// to copy; file name and value must outlive it.
class JsonReader {
 public:
  JsonReader(const nlohmann::json& value, std::string_view file,
             std::string path = "")
      : value_(&value), file_(file), path_(std::move(path)) {}

  // Whole files. Errors: kModelFileInvalid with the offset of a syntax error.
  static absl::StatusOr<nlohmann::json> Parse(const std::string& text,
                                              std::string_view file);

  const nlohmann::json& value() const { return *value_; }
  bool is_null() const { return value_->is_null(); }

  // A member; null (as a value) where it is absent. Error: not an object.
  absl::StatusOr<JsonReader> Get(const char* name) const;
  // The elements. Error: not an array.
  absl::StatusOr<std::vector<JsonReader>> Elements() const;

  absl::StatusOr<std::string> String() const;
  absl::StatusOr<int64_t> Integer(int64_t least, int64_t most) const;
  absl::StatusOr<bool> Bool() const;

  // Members with a default where they are absent or null.
  absl::StatusOr<std::string> StringOr(const char* name,
                                       std::string_view otherwise) const;
  absl::StatusOr<bool> BoolOr(const char* name, bool otherwise) const;

  // kModelFileInvalid: "FILE: PATH WHAT".
  absl::Status Error(std::string_view what) const;

 private:
  const nlohmann::json* value_;
  std::string_view file_;
  std::string path_;
};

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_JSON_READER_H_
