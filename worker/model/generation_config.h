// generation_config.json: the sampling defaults that a model's authors chose.
#ifndef CARAVAN_WORKER_MODEL_GENERATION_CONFIG_H_
#define CARAVAN_WORKER_MODEL_GENERATION_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan::worker {

// What the file says; absent fields have no default of the model.
struct GenerationConfig {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<std::vector<int32_t>> eos_ids;
};

// Reads DIR/generation_config.json; all absent where there is no such file.
// `do_sample: false` without a temperature means temperature 0. Values out of
// range are refused with kModelFileInvalid, naming file, key, limit and value.
absl::StatusOr<GenerationConfig> LoadGenerationConfig(
    const std::string& directory, int32_t vocab_size);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_GENERATION_CONFIG_H_
