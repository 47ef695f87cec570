// config.json of a Llama-family model (Hugging Face layout), validated.
#ifndef CARAVAN_WORKER_MODEL_CONFIG_H_
#define CARAVAN_WORKER_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/model/stage.h"
#include "worker/tensor/dtype.h"

namespace caravan::worker {

enum class RopeType { kPlain, kLinear, kDynamic, kYarn, kLlama3 };

// "plain", "linear", "dynamic", "yarn", "llama3".
std::string_view Name(RopeType type);

struct RopeScaling {
  RopeType type = RopeType::kPlain;
  double factor = 1;             // [1, 65536]
  int32_t original_context = 0;  // yarn, llama3: what the model was trained on
  // llama3
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  // yarn
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;                    // correction range to whole indices
  std::optional<double> attention_factor;  // of cos and sin
  std::optional<double> mscale;            // both or neither matter
  std::optional<double> mscale_all_dim;
};

struct ModelConfig {
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t layers = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  float rms_norm_eps = 1e-6f;
  double rope_theta = 10000;
  RopeScaling rope;
  // What each frequency is divided by besides: llama3's scaling as GGUF files
  // have it. Empty or of head_dim / 2.
  std::vector<float> rope_divisors;
  int32_t max_position_embeddings = 2048;
  bool tied_embeddings = false;
  bool attention_bias = false;
  bool mlp_bias = false;
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;
  std::optional<DType> torch_dtype;  // what the file says; tensors decide

  // The part of the model that this process has; all numbers above are the
  // whole model's.
  Stage stage;

  // Layers of the stage. Borders fall where the stages' matrices, the output
  // head's included, are as equal as whole layers allow; every stage has one
  // layer at least (CheckStage).
  LayerRange stage_layers() const { return LayersOf(stage); }
  LayerRange LayersOf(const Stage& which) const;

  // Prompt plus output, in tokens. Linear and dynamic scaling stretch
  // max_position_embeddings, yarn the original context, by the factor; else it
  // is max_position_embeddings.
  int32_t context_length() const;

  // Positions from which a sequence's state depends on its prompt's length
  // (dynamic NTK); 0 where it never does.
  int32_t unscaled_context_length() const;
};

// Reads DIR/config.json, or tells it from Meta's params.json and checkpoint,
// then applies `overrides`, each "key=JSON" for a key
// of config.json, such as rope_scaling={"type":"linear","factor":4}. Errors,
// all kModelFileInvalid or kUnsupportedParameter, name file, key, limit and
// value: wrong types, values out of range, a model_type other than llama,
// quantization_config of methods that are not read, unknown rope_scaling types
// and keys.
absl::StatusOr<ModelConfig> LoadModelConfig(
    const std::string& directory, const std::vector<std::string>& overrides);

// The same from text; `file` names it in errors.
absl::StatusOr<ModelConfig> ParseModelConfig(
    std::string_view text, std::string_view file,
    const std::vector<std::string>& overrides);

// Refuses a stage that is not one, or more stages than the model has layers,
// naming `flag`.
absl::Status CheckStage(std::string_view flag, const Stage& stage,
                        const ModelConfig& config);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_CONFIG_H_
