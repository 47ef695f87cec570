#include "worker/model/json_file.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <system_error>

#include "common/json.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

using nlohmann::json;

// Greatest nesting of brackets outside of strings.
int DepthOf(std::string_view text) {
  int depth = 0;
  int greatest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '{' || c == '[') greatest = std::max(greatest, ++depth);
    if (c == '}' || c == ']') --depth;
  }
  return greatest;
}

// The value of an integer, or nothing when it is none or does not fit.
std::optional<int64_t> IntegerOf(const json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() >
          static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return std::nullopt;
  }
  return value.get<int64_t>();
}

std::string IntegerLimit(int64_t least, int64_t most) {
  return StrCat("an integer in [", least, ", ", most, "]");
}

}  // namespace

absl::Status ModelFileError(std::string_view file, std::string_view what,
                            std::string_view limit, std::string_view value) {
  return MakeError(
      Reason::kModelFileInvalid,
      StrCat(file, ": ", what, " must be ", limit, "; got ", value),
      {{"file", std::string(file)},
       {"what", std::string(what)},
       {"limit", std::string(limit)},
       {"value", std::string(value)}});
}

absl::StatusOr<json> ParseJsonObject(std::string_view text,
                                     std::string_view file,
                                     const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return ModelFileError(file, "size in bytes",
                          StrCat("at most ", limits.max_bytes),
                          StrCat(text.size()));
  }
  if (const int depth = DepthOf(text); depth > limits.max_depth) {
    return ModelFileError(file, "depth of JSON",
                          StrCat("at most ", limits.max_depth), StrCat(depth));
  }
  json value = ParseJson(text);
  if (value.is_discarded()) {
    return ModelFileError(file, "content", "JSON", "broken JSON");
  }
  if (!value.is_object()) {
    return ModelFileError(file, "content", "a JSON object", Excerpt(value));
  }
  return value;
}

absl::StatusOr<json> ReadJsonObject(const std::string& path,
                                    const JsonLimits& limits) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return MakeError(Reason::kNotFound, StrCat(path, ": no such file"),
                     {{"file", path}});
  }
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error || size > limits.max_bytes) {
    return ModelFileError(path, "size in bytes",
                          StrCat("at most ", limits.max_bytes), StrCat(size));
  }
  std::string text(size, '\0');
  std::ifstream in(path, std::ios::binary);
  if (!in.read(text.data(), static_cast<std::streamsize>(size))) {
    return ModelFileError(path, "content", "readable", "a read error");
  }
  return ParseJsonObject(text, path, limits);
}

std::string Excerpt(const json& value) {
  constexpr size_t kLongest = 80;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true,
                                json::error_handler_t::replace);
  if (text.size() > kLongest) {
    text.resize(kLongest - 3);
    text += "...";
  }
  return text;
}

const json* JsonReader::Find(std::string_view key) const {
  const auto found = object_->find(std::string(key));
  if (found == object_->end() || found->is_null()) return nullptr;
  return &*found;
}

absl::Status JsonReader::Error(std::string_view key, std::string_view limit,
                               std::string_view value) const {
  return ModelFileError(file_, StrCat(prefix_, key), limit, value);
}

absl::StatusOr<std::optional<int64_t>> JsonReader::Int(std::string_view key,
                                                       int64_t least,
                                                       int64_t most) const {
  const json* const value = Find(key);
  if (value == nullptr) return std::optional<int64_t>();
  const std::optional<int64_t> integer = IntegerOf(*value);
  if (!integer || *integer < least || *integer > most) {
    return Error(key, IntegerLimit(least, most), Excerpt(*value));
  }
  return integer;
}

absl::StatusOr<int64_t> JsonReader::RequiredInt(std::string_view key,
                                                int64_t least,
                                                int64_t most) const {
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<int64_t> value,
                           Int(key, least, most));
  if (!value) return Error(key, IntegerLimit(least, most), "nothing");
  return *value;
}

absl::StatusOr<std::optional<double>> JsonReader::Number(std::string_view key,
                                                         double least,
                                                         double most) const {
  const json* const value = Find(key);
  if (value == nullptr) return std::optional<double>();
  const double number = value->is_number() ? value->get<double>() : 0;
  if (!value->is_number() || !(number >= least && number <= most)) {
    return Error(key, StrCat("a number in [", least, ", ", most, "]"),
                 Excerpt(*value));
  }
  return std::optional<double>(number);
}

absl::StatusOr<std::optional<bool>> JsonReader::Bool(
    std::string_view key) const {
  const json* const value = Find(key);
  if (value == nullptr) return std::optional<bool>();
  if (!value->is_boolean()) {
    return Error(key, "true or false", Excerpt(*value));
  }
  return std::optional<bool>(value->get<bool>());
}

absl::StatusOr<std::optional<std::string>> JsonReader::Text(
    std::string_view key) const {
  const json* const value = Find(key);
  if (value == nullptr) return std::optional<std::string>();
  if (!value->is_string()) return Error(key, "a string", Excerpt(*value));
  return std::optional<std::string>(value->get<std::string>());
}

absl::StatusOr<std::optional<std::vector<int32_t>>> JsonReader::Ids(
    std::string_view key, int64_t most) const {
  constexpr size_t kMostIds = 64;
  const json* const value = Find(key);
  if (value == nullptr) return std::optional<std::vector<int32_t>>();
  const json list = value->is_array() ? *value : json::array({*value});
  if (list.size() > kMostIds) {
    return Error(key, StrCat("at most ", kMostIds, " ids"),
                 StrCat(list.size()));
  }
  std::vector<int32_t> ids;
  for (const json& entry : list) {
    const std::optional<int64_t> id = IntegerOf(entry);
    if (!id || *id < -1 || *id > most) {
      return Error(key, IntegerLimit(-1, most), Excerpt(entry));
    }
    if (*id >= 0) ids.push_back(static_cast<int32_t>(*id));
  }
  return std::optional<std::vector<int32_t>>(std::move(ids));
}

}  // namespace caravan::worker
