// Reading JSON of a model directory: every wrong type is an error that names
// file and field.
#ifndef CARAVAN_COMMON_TEXT_JSON_READER_H_
#define CARAVAN_COMMON_TEXT_JSON_READER_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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

// Builds the tree of a file while it is parsed (nlohmann::json::sax_parse);
// whoever wants to keep large parts out of the tree derives from it. Bounds the
// depth.
class JsonTreeBuilder : public nlohmann::json::json_sax_t {
 public:
  bool null() override { return Value(nullptr); }
  bool boolean(bool value) override { return Value(value); }
  bool number_integer(number_integer_t value) override { return Value(value); }
  bool number_unsigned(number_unsigned_t value) override {
    return Value(value);
  }
  bool number_float(number_float_t value, const string_t&) override {
    return Value(value);
  }
  bool string(string_t& value) override { return Value(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool key(string_t& value) override {
    key_ = std::move(value);
    return true;
  }
  bool start_object(size_t) override { return Open(nlohmann::json::object()); }
  bool start_array(size_t) override { return Open(nlohmann::json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool parse_error(size_t offset, const std::string&,
                   const nlohmann::json::exception&) override;

  // Why parsing stopped.
  const std::string& problem() const { return problem_; }
  // The tree, after all is parsed.
  nlohmann::json Take() { return std::move(root_); }

 protected:
  // Every value that is neither object nor array.
  virtual bool Value(nlohmann::json value) { return Put(std::move(value)); }

  bool Put(nlohmann::json value);
  bool Open(nlohmann::json empty);
  bool Close();
  // Counts one level more; false (and a problem) where it is one too many.
  bool Enter();
  void Leave() { --depth_; }
  bool Fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  // Of the member that comes next.
  const std::string& member() const { return key_; }
  size_t open_count() const { return open_.size(); }

 private:
  nlohmann::json& Place();

  nlohmann::json root_;
  std::vector<nlohmann::json*> open_;
  std::string key_;
  int depth_ = 0;
  std::string problem_;
};

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_JSON_READER_H_
