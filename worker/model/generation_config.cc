#include "worker/model/generation_config.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"

namespace caravan::worker {
namespace {

absl::Status ReadFloat(const JsonReader& reader, std::string_view key,
                       double least, double most,
                       std::optional<float>& target) {
  CARAVAN_ASSIGN_OR_RETURN(const auto value, reader.Number(key, least, most));
  if (value) target = static_cast<float>(*value);
  return absl::OkStatus();
}

absl::StatusOr<GenerationConfig> FromJson(const nlohmann::json& object,
                                          const std::string& path,
                                          int32_t vocab_size) {
  constexpr double kLeast = 1e-6;  // of what must be above zero
  const JsonReader reader(&object, path);
  GenerationConfig config;
  CARAVAN_RETURN_IF_ERROR(
      ReadFloat(reader, "temperature", 0, 2, config.temperature));
  CARAVAN_RETURN_IF_ERROR(ReadFloat(reader, "top_p", kLeast, 1, config.top_p));
  CARAVAN_RETURN_IF_ERROR(ReadFloat(reader, "min_p", 0, 1, config.min_p));
  CARAVAN_RETURN_IF_ERROR(ReadFloat(reader, "repetition_penalty", kLeast, 2,
                                    config.repetition_penalty));
  CARAVAN_ASSIGN_OR_RETURN(const auto top_k,
                           reader.Int("top_k", 0, vocab_size));
  if (top_k) config.top_k = static_cast<int32_t>(*top_k);
  CARAVAN_ASSIGN_OR_RETURN(config.eos_ids,
                           reader.Ids("eos_token_id", vocab_size - 1));
  CARAVAN_ASSIGN_OR_RETURN(const auto do_sample, reader.Bool("do_sample"));
  if (do_sample && !*do_sample && !config.temperature) config.temperature = 0;
  return config;
}

}  // namespace

absl::StatusOr<GenerationConfig> LoadGenerationConfig(
    const std::string& directory, int32_t vocab_size) {
  const std::string path = StrCat(directory, "/generation_config.json");
  const auto object = ReadJsonObject(path, JsonLimits());
  if (absl::IsNotFound(object.status())) return GenerationConfig();
  CARAVAN_RETURN_IF_ERROR(object.status());
  return FromJson(*object, path, vocab_size);
}

}  // namespace caravan::worker
