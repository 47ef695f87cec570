// JSON files of a model directory, read with suspicion: bounded size and
// depth, and every value checked for type and range with errors that name
// file, key, limit and value (kModelFileInvalid).
#ifndef CARAVAN_WORKER_MODEL_JSON_FILE_H_
#define CARAVAN_WORKER_MODEL_JSON_FILE_H_

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caravan::worker {

// "FILE: WHAT must be LIMIT; got VALUE".
absl::Status ModelFileError(std::string_view file, std::string_view what,
                            std::string_view limit, std::string_view value);

struct JsonLimits {
  size_t max_bytes = size_t{16} << 20;
  int max_depth = 16;
};

// Parses an object. `file` names it in errors.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text,
                                               std::string_view file,
                                               const JsonLimits& limits);

// Reads and parses a file. kNotFound where there is none.
absl::StatusOr<nlohmann::json> ReadJsonObject(const std::string& path,
                                              const JsonLimits& limits);

// A short form of a value for messages: at most 80 bytes.
std::string Excerpt(const nlohmann::json& value);

// Typed reads of one object; a key that is absent or null has no value. Both
// arguments must outlive the reader.
class JsonReader {
 public:
  // `prefix` goes before keys in messages, such as "rope_scaling.".
  JsonReader(const nlohmann::json* object, std::string_view file,
             std::string_view prefix = "")
      : object_(object), file_(file), prefix_(prefix) {}

  bool Has(std::string_view key) const { return Find(key) != nullptr; }
  const nlohmann::json* Find(std::string_view key) const;

  // Integers in [least, most].
  absl::StatusOr<std::optional<int64_t>> Int(std::string_view key,
                                             int64_t least, int64_t most) const;
  absl::StatusOr<int64_t> RequiredInt(std::string_view key, int64_t least,
                                      int64_t most) const;
  // Finite numbers in [least, most].
  absl::StatusOr<std::optional<double>> Number(std::string_view key,
                                               double least, double most) const;
  absl::StatusOr<std::optional<bool>> Bool(std::string_view key) const;
  absl::StatusOr<std::optional<std::string>> Text(std::string_view key) const;
  // One integer or a list of them, each in [-1, most]; -1 stands for none and
  // is left out.
  absl::StatusOr<std::optional<std::vector<int32_t>>> Ids(std::string_view key,
                                                          int64_t most) const;

  // An error about `key`.
  absl::Status Error(std::string_view key, std::string_view limit,
                     std::string_view value) const;

 private:
  const nlohmann::json* object_;
  std::string file_;
  std::string prefix_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_JSON_FILE_H_
