// Reads a request body: every field with its type, nothing ignored.
#ifndef CARAVAN_GATEWAY_OPENAI_JSON_READER_H_
#define CARAVAN_GATEWAY_OPENAI_JSON_READER_H_

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caravan::gateway::openai {

using Json = nlohmann::json;

// Bounds of what a body may cost before anything is known of it.
inline constexpr int kMaxJsonDepth = 64;
inline constexpr int kMaxJsonValues = 4'000'000;

// The object in `body`. Errors: kInvalidUtf8 and kMalformedJson with the byte
// offset, kInvalidField where it is no object.
absl::StatusOr<Json> ParseObject(std::string_view body);

// A short rendering of a wrong value for messages, at most 64 bytes.
std::string Excerpt(const Json& value);

// Reads the fields of one object. An absent field and a null leave the target
// as it was. Errors: kInvalidField naming the path, the expected type and the
// value.
//
// Not thread-safe. The object must outlive the reader.
class ObjectReader {
 public:
  // `path` is put before the names of fields: "" or "messages[0]".
  ObjectReader(const Json& object, std::string path);

  absl::Status Read(std::string_view key, std::optional<float>& out);
  absl::Status Read(std::string_view key, std::optional<int32_t>& out);
  absl::Status Read(std::string_view key, std::optional<std::string>& out);
  absl::Status Read(std::string_view key, std::string& out);
  absl::Status Read(std::string_view key, bool& out);
  absl::Status Read(std::string_view key, std::optional<bool>& out);
  // Any 64-bit integer; a negative one is its two's complement.
  absl::Status ReadSeed(std::string_view key, std::optional<uint64_t>& out);
  absl::Status ReadTokenIds(std::string_view key, std::vector<int32_t>& out);

  // The value of a field, or null where it is absent or null.
  const Json* Find(std::string_view key);

  // The field is accepted and has no effect on tokens.
  void Accept(std::string_view key) { known_.insert(std::string(key)); }

  // The field is known and only its neutral values are served. Error:
  // kUnsupportedParameter.
  absl::Status AllowOnly(std::string_view key,
                         const std::function<bool(const Json&)>& neutral,
                         std::string_view advice);

  // Called last. Error: kUnknownParameter for a field that nobody asked for.
  absl::Status RefuseUnknown() const;

  std::string PathOf(std::string_view key) const;

 private:
  const Json& object_;
  const std::string path_;
  std::set<std::string, std::less<>> known_;
};

// An integer in [least, most]; `field` names it in the error.
absl::StatusOr<int64_t> AsInteger(std::string_view field, const Json& value,
                                  int64_t least, int64_t most);
absl::StatusOr<std::vector<int32_t>> AsTokenIds(std::string_view field,
                                                const Json& value);

// kInvalidField: "FIELD must be EXPECTED; got EXCERPT".
absl::Status TypeError(std::string_view field, std::string_view expected,
                       const Json& value);

}  // namespace caravan::gateway::openai

#endif  // CARAVAN_GATEWAY_OPENAI_JSON_READER_H_
