#include "gateway/openai/json_reader.h"

#include <cmath>
#include <limits>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/utf8.h"

namespace caravan::gateway::openai {
namespace {

constexpr int64_t kLeastInt32 = std::numeric_limits<int32_t>::min();
constexpr int64_t kMostInt32 = std::numeric_limits<int32_t>::max();
constexpr size_t kExcerptBytes = 64;

absl::Status Malformed(std::string_view what, size_t offset) {
  return MakeError(Reason::kMalformedJson,
                   StrCat("body is not JSON: ", what, " at byte ", offset),
                   {{"offset", StrCat(offset)}});
}

// Bounds nesting and the number of values before memory is spent on them.
absl::Status CheckShape(std::string_view body) {
  int depth = 0;
  int values = 1;
  bool in_string = false;
  for (size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    if (c == ',') ++values;
    if (depth > kMaxJsonDepth) {
      return Malformed(StrCat("nested deeper than ", kMaxJsonDepth), i);
    }
    if (values > kMaxJsonValues) {
      return Malformed(StrCat("more than ", kMaxJsonValues, " values"), i);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Json> ParseObject(std::string_view body) {
  if (const auto offset = text::FirstInvalidUtf8(body)) {
    return MakeError(Reason::kInvalidUtf8,
                     StrCat("body must be UTF-8; byte ", *offset, " is not"),
                     {{"offset", StrCat(*offset)}});
  }
  CARAVAN_RETURN_IF_ERROR(CheckShape(body));
  Json json;
  try {
    json = Json::parse(body);
  } catch (const Json::parse_error& error) {
    return Malformed("syntax error", error.byte);
  } catch (const Json::exception&) {  // a number beyond the range of double
    return Malformed("number out of range", body.size());
  }
  if (!json.is_object()) return TypeError("body", "a JSON object", json);
  return json;
}

std::string Excerpt(const Json& value) {
  switch (value.type()) {
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string: {
      const auto& text = value.get_ref<const std::string&>();
      if (text.size() <= kExcerptBytes) return StrCat("\"", text, "\"");
      return StrCat("a string of ", text.size(), " bytes");
    }
    default:
      return value.dump();
  }
}

absl::Status TypeError(std::string_view field, std::string_view expected,
                       const Json& value) {
  return FieldError(field, expected, Excerpt(value));
}

absl::StatusOr<int64_t> AsInteger(std::string_view field, const Json& value,
                                  int64_t least, int64_t most) {
  if (!value.is_number_integer()) {
    return TypeError(field, "an integer", value);
  }
  const bool too_large =
      value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(most < 0 ? 0 : most);
  if (too_large || value.get<int64_t>() < least ||
      value.get<int64_t>() > most) {
    return TypeError(field, StrCat("in [", least, ", ", most, "]"), value);
  }
  return value.get<int64_t>();
}

absl::StatusOr<std::vector<int32_t>> AsTokenIds(std::string_view field,
                                                const Json& value) {
  if (!value.is_array()) return TypeError(field, "an array of ids", value);
  std::vector<int32_t> ids;
  ids.reserve(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    // The path is built for errors only: prompts are long.
    if (!value[i].is_number_integer() || value[i] < 0 ||
        value[i] > kMostInt32) {
      return TypeError(StrCat(field, "[", i, "]"),
                       StrCat("a token id in [0, ", kMostInt32, "]"), value[i]);
    }
    ids.push_back(value[i].get<int32_t>());
  }
  return ids;
}

ObjectReader::ObjectReader(const Json& object, std::string path)
    : object_(object), path_(std::move(path)) {}

std::string ObjectReader::PathOf(std::string_view key) const {
  return path_.empty() ? std::string(key) : StrCat(path_, ".", key);
}

const Json* ObjectReader::Find(std::string_view key) {
  Accept(key);
  const auto it = object_.find(std::string(key));
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

absl::Status ObjectReader::Read(std::string_view key,
                                std::optional<float>& out) {
  const Json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number()) return TypeError(PathOf(key), "a number", *value);
  const auto number = value->get<double>();
  if (std::abs(number) > std::numeric_limits<float>::max()) {
    return TypeError(PathOf(key), "a number of 32 bits", *value);
  }
  out = static_cast<float>(number);
  return absl::OkStatus();
}

absl::Status ObjectReader::Read(std::string_view key,
                                std::optional<int32_t>& out) {
  const Json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  CARAVAN_ASSIGN_OR_RETURN(
      const int64_t number,
      AsInteger(PathOf(key), *value, kLeastInt32, kMostInt32));
  out = static_cast<int32_t>(number);
  return absl::OkStatus();
}

absl::Status ObjectReader::Read(std::string_view key,
                                std::optional<std::string>& out) {
  const Json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_string()) return TypeError(PathOf(key), "a string", *value);
  out = value->get<std::string>();
  return absl::OkStatus();
}

absl::Status ObjectReader::Read(std::string_view key, std::string& out) {
  std::optional<std::string> value;
  CARAVAN_RETURN_IF_ERROR(Read(key, value));
  if (value) out = *std::move(value);
  return absl::OkStatus();
}

absl::Status ObjectReader::Read(std::string_view key,
                                std::optional<bool>& out) {
  const Json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_boolean()) {
    return TypeError(PathOf(key), "true or false", *value);
  }
  out = value->get<bool>();
  return absl::OkStatus();
}

absl::Status ObjectReader::Read(std::string_view key, bool& out) {
  std::optional<bool> value;
  CARAVAN_RETURN_IF_ERROR(Read(key, value));
  if (value) out = *value;
  return absl::OkStatus();
}

absl::Status ObjectReader::ReadSeed(std::string_view key,
                                    std::optional<uint64_t>& out) {
  const Json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number_integer()) {
    return TypeError(PathOf(key), "an integer of 64 bits", *value);
  }
  out = value->is_number_unsigned()
            ? value->get<uint64_t>()
            : static_cast<uint64_t>(value->get<int64_t>());
  return absl::OkStatus();
}

absl::Status ObjectReader::ReadTokenIds(std::string_view key,
                                        std::vector<int32_t>& out) {
  const Json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  CARAVAN_ASSIGN_OR_RETURN(out, AsTokenIds(PathOf(key), *value));
  return absl::OkStatus();
}

absl::Status ObjectReader::AllowOnly(
    std::string_view key, const std::function<bool(const Json&)>& neutral,
    std::string_view advice) {
  const Json* value = Find(key);
  if (value == nullptr || neutral(*value)) return absl::OkStatus();
  return UnsupportedError(PathOf(key), advice);
}

absl::Status ObjectReader::RefuseUnknown() const {
  for (const auto& item : object_.items()) {
    if (known_.contains(item.key())) continue;
    const std::string path =
        text::ReplaceInvalidUtf8(PathOf(item.key()).substr(0, kExcerptBytes));
    return WithFieldViolations(
        MakeError(Reason::kUnknownParameter,
                  StrCat(path, " is not a known parameter; leave it out"),
                  {{"field", path}}),
        {{path, "is not known"}});
  }
  return absl::OkStatus();
}

}  // namespace caravan::gateway::openai
