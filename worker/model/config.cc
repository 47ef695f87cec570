#include "worker/model/config.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "common/json.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/gguf_checkpoint.h"
#include "worker/model/json_file.h"
#include "worker/model/meta_checkpoint.h"
#include "worker/model/quantization_config.h"

namespace caravan::worker {
namespace {

using nlohmann::json;

constexpr int64_t kMostContext = int64_t{1} << 24;
constexpr int64_t kMostWidth = int64_t{1} << 20;
constexpr int64_t kMostVocabulary = int64_t{1} << 24;
constexpr int64_t kMostLayers = 1024;
constexpr int64_t kMostHeads = 4096;
constexpr int64_t kMostHeadDim = 1024;
constexpr double kMostFactor = 65536;

constexpr std::array<std::string_view, 24> kKeys = {"hidden_size",
                                                    "intermediate_size",
                                                    "num_hidden_layers",
                                                    "vocab_size",
                                                    "num_attention_heads",
                                                    "num_key_value_heads",
                                                    "head_dim",
                                                    "rms_norm_eps",
                                                    "max_position_embeddings",
                                                    "rope_theta",
                                                    "rope_scaling",
                                                    "rope_parameters",
                                                    "attention_bias",
                                                    "mlp_bias",
                                                    "tie_word_embeddings",
                                                    "bos_token_id",
                                                    "eos_token_id",
                                                    "torch_dtype",
                                                    "dtype",
                                                    "hidden_act",
                                                    "model_type",
                                                    "architectures",
                                                    "quantization_config",
                                                    "partial_rotary_factor"};

// Turns the newest form, rope_parameters, into rope_theta and rope_scaling.
absl::Status NormalizeRope(std::string_view file, json& object) {
  const JsonReader reader(&object, file);
  const json* const found = reader.Find("rope_parameters");
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_object()) {
    return reader.Error("rope_parameters", "an object", Excerpt(*found));
  }
  if (reader.Has("rope_scaling")) {
    return reader.Error("rope_scaling", "absent where rope_parameters is given",
                        Excerpt(*reader.Find("rope_scaling")));
  }
  json parameters = *found;
  object.erase("rope_parameters");
  if (const auto theta = parameters.find("rope_theta");
      theta != parameters.end()) {
    object["rope_theta"] = *theta;
    parameters.erase(theta);
  }
  object["rope_scaling"] = std::move(parameters);
  return absl::OkStatus();
}

absl::Status ApplyOverride(const std::string& text, std::string_view file,
                           json& object) {
  const size_t equals = text.find('=');
  const std::string key = text.substr(0, equals);
  if (equals == std::string::npos ||
      std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) {
    return FieldError("--override", "KEY=JSON with a key of config.json", text);
  }
  json value = ParseJson(text.substr(equals + 1));
  if (value.is_discarded()) {
    return FieldError(StrCat("--override ", key), "JSON",
                      text.substr(equals + 1));
  }
  if (key == "rope_parameters") object.erase("rope_scaling");
  object[key] = std::move(value);
  return NormalizeRope(file, object);
}

absl::StatusOr<RopeType> RopeTypeOf(const JsonReader& reader) {
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<std::string> old_key,
                           reader.Text("type"));
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<std::string> new_key,
                           reader.Text("rope_type"));
  if (old_key && new_key && *old_key != *new_key) {
    return reader.Error("type", StrCat("equal to rope_type, ", *new_key),
                        *old_key);
  }
  const std::string name =
      new_key.value_or(old_key.value_or(std::string("default")));
  if (name == "default") return RopeType::kPlain;
  for (const RopeType type : {RopeType::kLinear, RopeType::kDynamic,
                              RopeType::kYarn, RopeType::kLlama3}) {
    if (name == Name(type)) return type;
  }
  return reader.Error("rope_type", "default, linear, dynamic, yarn or llama3",
                      name);
}

// Keys that mean something for a type; `finetuned` is a remark.
bool KnownRopeKey(RopeType type, std::string_view key) {
  constexpr std::string_view kAlways[] = {"type", "rope_type", "factor",
                                          "finetuned"};
  constexpr std::string_view kLlama3[] = {"low_freq_factor", "high_freq_factor",
                                          "original_max_position_embeddings"};
  constexpr std::string_view kYarn[] = {"original_max_position_embeddings",
                                        "beta_fast",
                                        "beta_slow",
                                        "attention_factor",
                                        "mscale",
                                        "mscale_all_dim",
                                        "truncate"};
  const auto in = [key](const auto& keys) {
    return std::find(std::begin(keys), std::end(keys), key) != std::end(keys);
  };
  return in(kAlways) || (type == RopeType::kLlama3 && in(kLlama3)) ||
         (type == RopeType::kYarn && in(kYarn));
}

absl::Status ReadLlama3(const JsonReader& reader, RopeScaling& rope) {
  CARAVAN_ASSIGN_OR_RETURN(
      const int64_t original,
      reader.RequiredInt("original_max_position_embeddings", 1, kMostContext));
  rope.original_context = static_cast<int32_t>(original);
  CARAVAN_ASSIGN_OR_RETURN(const auto low,
                           reader.Number("low_freq_factor", 1e-3, kMostFactor));
  CARAVAN_ASSIGN_OR_RETURN(
      const auto high, reader.Number("high_freq_factor", 1e-3, kMostFactor));
  rope.low_freq_factor = low.value_or(1);
  rope.high_freq_factor = high.value_or(4);
  if (rope.low_freq_factor < rope.high_freq_factor) return absl::OkStatus();
  return reader.Error(
      "low_freq_factor",
      StrCat("less than high_freq_factor, ", rope.high_freq_factor),
      StrCat(rope.low_freq_factor));
}

absl::Status ReadYarn(const JsonReader& reader, int32_t max_position,
                      RopeScaling& rope) {
  CARAVAN_ASSIGN_OR_RETURN(
      const auto original,
      reader.Int("original_max_position_embeddings", 1, kMostContext));
  rope.original_context = static_cast<int32_t>(original.value_or(max_position));
  CARAVAN_ASSIGN_OR_RETURN(const auto fast,
                           reader.Number("beta_fast", 1e-3, kMostFactor));
  CARAVAN_ASSIGN_OR_RETURN(const auto slow,
                           reader.Number("beta_slow", 1e-3, kMostFactor));
  rope.beta_fast = fast.value_or(32);
  rope.beta_slow = slow.value_or(1);
  if (rope.beta_fast < rope.beta_slow) {
    return reader.Error("beta_fast",
                        StrCat("at least beta_slow, ", rope.beta_slow),
                        StrCat(rope.beta_fast));
  }
  CARAVAN_ASSIGN_OR_RETURN(rope.attention_factor,
                           reader.Number("attention_factor", 1e-3, 1e3));
  CARAVAN_ASSIGN_OR_RETURN(rope.mscale, reader.Number("mscale", 0, 1e3));
  CARAVAN_ASSIGN_OR_RETURN(rope.mscale_all_dim,
                           reader.Number("mscale_all_dim", 0, 1e3));
  CARAVAN_ASSIGN_OR_RETURN(const auto truncate, reader.Bool("truncate"));
  rope.truncate = truncate.value_or(true);
  return absl::OkStatus();
}

absl::StatusOr<RopeScaling> ReadRope(const JsonReader& outer,
                                     std::string_view file,
                                     int32_t max_position) {
  RopeScaling rope;
  const json* const object = outer.Find("rope_scaling");
  if (object == nullptr) return rope;
  if (!object->is_object()) {
    return outer.Error("rope_scaling", "an object or null", Excerpt(*object));
  }
  const JsonReader reader(object, file, "rope_scaling.");
  CARAVAN_ASSIGN_OR_RETURN(rope.type, RopeTypeOf(reader));
  for (const auto& [key, value] : object->items()) {
    if (!KnownRopeKey(rope.type, key)) {
      return reader.Error(key,
                          StrCat("absent for type ", Name(rope.type),
                                 " (see --override rope_scaling)"),
                          Excerpt(value));
    }
  }
  if (rope.type == RopeType::kPlain) return rope;
  CARAVAN_ASSIGN_OR_RETURN(const auto factor,
                           reader.Number("factor", 1, kMostFactor));
  if (!factor) {
    return reader.Error("factor", StrCat("in [1, ", kMostFactor, "]"),
                        "nothing");
  }
  rope.factor = *factor;
  if (rope.type == RopeType::kLlama3) {
    CARAVAN_RETURN_IF_ERROR(ReadLlama3(reader, rope));
  }
  if (rope.type == RopeType::kYarn) {
    CARAVAN_RETURN_IF_ERROR(ReadYarn(reader, max_position, rope));
  }
  return rope;
}

// What the forward page does not compute is refused by name.
absl::Status RefuseOthers(const JsonReader& reader, std::string_view file) {
  CARAVAN_ASSIGN_OR_RETURN(const auto type, reader.Text("model_type"));
  if (type && *type != "llama") {
    return MakeError(Reason::kModelFileInvalid,
                     StrCat(file, ": model_type must be llama; got ", *type),
                     {{"file", std::string(file)}, {"value", *type}});
  }
  if (const json* const config = reader.Find("quantization_config")) {
    CARAVAN_RETURN_IF_ERROR(ParseQuantizationConfig(*config, file).status());
  }
  CARAVAN_ASSIGN_OR_RETURN(const auto act, reader.Text("hidden_act"));
  if (act && *act != "silu" && *act != "swish") {
    return reader.Error("hidden_act", "silu", *act);
  }
  CARAVAN_ASSIGN_OR_RETURN(const auto partial,
                           reader.Number("partial_rotary_factor", 0, 1));
  if (partial && *partial != 1) {
    return reader.Error("partial_rotary_factor", "1", StrCat(*partial));
  }
  return absl::OkStatus();
}

absl::Status ReadSizes(const JsonReader& reader, ModelConfig& config) {
  struct Size {
    std::string_view key;
    int64_t most;
    int32_t* target;
  };
  for (const Size& size :
       {Size{"vocab_size", kMostVocabulary, &config.vocab_size},
        Size{"hidden_size", kMostWidth, &config.hidden_size},
        Size{"intermediate_size", kMostWidth, &config.intermediate_size},
        Size{"num_hidden_layers", kMostLayers, &config.layers},
        Size{"num_attention_heads", kMostHeads, &config.heads}}) {
    CARAVAN_ASSIGN_OR_RETURN(const int64_t value,
                             reader.RequiredInt(size.key, 1, size.most));
    *size.target = static_cast<int32_t>(value);
  }
  CARAVAN_ASSIGN_OR_RETURN(
      const auto context,
      reader.Int("max_position_embeddings", 1, kMostContext));
  config.max_position_embeddings = static_cast<int32_t>(context.value_or(2048));
  return absl::OkStatus();
}

absl::Status ReadHeads(const JsonReader& reader, ModelConfig& config) {
  CARAVAN_ASSIGN_OR_RETURN(const auto kv_heads,
                           reader.Int("num_key_value_heads", 1, kMostHeads));
  config.kv_heads = static_cast<int32_t>(kv_heads.value_or(config.heads));
  if (config.heads % config.kv_heads != 0) {
    return reader.Error(
        "num_key_value_heads",
        StrCat("a divisor of num_attention_heads, ", config.heads),
        StrCat(config.kv_heads));
  }
  CARAVAN_ASSIGN_OR_RETURN(const auto head_dim,
                           reader.Int("head_dim", 4, kMostHeadDim));
  if (!head_dim && config.hidden_size % config.heads != 0) {
    return reader.Error("hidden_size",
                        StrCat("a multiple of num_attention_heads, ",
                               config.heads, ", where head_dim is absent"),
                        StrCat(config.hidden_size));
  }
  config.head_dim = static_cast<int32_t>(
      head_dim.value_or(config.hidden_size / config.heads));
  if (config.head_dim < 4 || config.head_dim > kMostHeadDim ||
      config.head_dim % 2 != 0) {
    return reader.Error("head_dim",
                        StrCat("even and in [4, ", kMostHeadDim, "]"),
                        StrCat(config.head_dim));
  }
  return absl::OkStatus();
}

absl::Status ReadDType(const JsonReader& reader, ModelConfig& config) {
  const std::string_view key = reader.Has("dtype") ? "dtype" : "torch_dtype";
  CARAVAN_ASSIGN_OR_RETURN(const auto name, reader.Text(key));
  if (!name) return absl::OkStatus();
  if (*name == "float32") {
    config.torch_dtype = DType::kFp32;
  } else if (*name == "bfloat16") {
    config.torch_dtype = DType::kBf16;
  } else if (*name == "float16") {
    config.torch_dtype = DType::kFp16;
  } else {
    return reader.Error(key, "float32, bfloat16 or float16", *name);
  }
  return absl::OkStatus();
}

absl::Status ReadOptions(const JsonReader& reader, ModelConfig& config) {
  CARAVAN_ASSIGN_OR_RETURN(const auto epsilon,
                           reader.Number("rms_norm_eps", 0, 1));
  config.rms_norm_eps = static_cast<float>(epsilon.value_or(1e-6));
  CARAVAN_ASSIGN_OR_RETURN(const auto theta,
                           reader.Number("rope_theta", 1.0001, 1e12));
  config.rope_theta = theta.value_or(10000);
  CARAVAN_ASSIGN_OR_RETURN(const auto tied, reader.Bool("tie_word_embeddings"));
  config.tied_embeddings = tied.value_or(false);
  CARAVAN_ASSIGN_OR_RETURN(const auto attention, reader.Bool("attention_bias"));
  config.attention_bias = attention.value_or(false);
  CARAVAN_ASSIGN_OR_RETURN(const auto mlp, reader.Bool("mlp_bias"));
  config.mlp_bias = mlp.value_or(false);
  return ReadDType(reader, config);
}

absl::Status ReadIds(const JsonReader& reader, ModelConfig& config) {
  const int64_t last = config.vocab_size - 1;
  CARAVAN_ASSIGN_OR_RETURN(const auto bos,
                           reader.Int("bos_token_id", -1, last));
  if (bos && *bos >= 0) config.bos_id = static_cast<int32_t>(*bos);
  CARAVAN_ASSIGN_OR_RETURN(auto eos, reader.Ids("eos_token_id", last));
  if (eos) config.eos_ids = *std::move(eos);
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> FromJson(
    json object, std::string_view file,
    const std::vector<std::string>& overrides) {
  CARAVAN_RETURN_IF_ERROR(NormalizeRope(file, object));
  for (const std::string& text : overrides) {
    CARAVAN_RETURN_IF_ERROR(ApplyOverride(text, file, object));
  }
  const JsonReader reader(&object, file);
  ModelConfig config;
  CARAVAN_RETURN_IF_ERROR(RefuseOthers(reader, file));
  CARAVAN_RETURN_IF_ERROR(ReadSizes(reader, config));
  CARAVAN_RETURN_IF_ERROR(ReadHeads(reader, config));
  CARAVAN_RETURN_IF_ERROR(ReadOptions(reader, config));
  CARAVAN_RETURN_IF_ERROR(ReadIds(reader, config));
  CARAVAN_ASSIGN_OR_RETURN(
      config.rope, ReadRope(reader, file, config.max_position_embeddings));
  return config;
}

absl::StatusOr<ModelConfig> FromGguf(
    const std::string& path, const std::vector<std::string>& overrides) {
  CARAVAN_ASSIGN_OR_RETURN(const auto checkpoint, GgufCheckpoint::Open(path));
  CARAVAN_ASSIGN_OR_RETURN(
      ModelConfig config,
      FromJson(checkpoint->config(), checkpoint->path(), overrides));
  config.rope_divisors = checkpoint->rope_divisors();
  const auto pairs = static_cast<size_t>(config.head_dim / 2);
  if (config.rope_divisors.empty() || config.rope_divisors.size() == pairs) {
    return config;
  }
  return ModelFileError(checkpoint->path(), "tensor rope_freqs.weight",
                        StrCat("of ", pairs, " elements"),
                        StrCat(config.rope_divisors.size()));
}

}  // namespace

std::string_view Name(RopeType type) {
  switch (type) {
    case RopeType::kPlain:
      return "plain";
    case RopeType::kLinear:
      return "linear";
    case RopeType::kDynamic:
      return "dynamic";
    case RopeType::kYarn:
      return "yarn";
    case RopeType::kLlama3:
      return "llama3";
  }
  return "unknown";
}

int32_t ModelConfig::context_length() const {
  double length = max_position_embeddings;
  if (rope.type == RopeType::kLinear || rope.type == RopeType::kDynamic) {
    length *= rope.factor;
  } else if (rope.type == RopeType::kYarn) {
    length = rope.original_context * rope.factor;
  }
  return static_cast<int32_t>(
      std::min(length, static_cast<double>(kMostContext)));
}

int32_t ModelConfig::unscaled_context_length() const {
  return rope.type == RopeType::kDynamic ? max_position_embeddings : 0;
}

LayerRange ModelConfig::LayersOf(const Stage& which) const {
  const int64_t attention = int64_t{2} * (heads + kv_heads) * head_dim;
  const int64_t layer = std::max<int64_t>(
      1, (attention + int64_t{3} * intermediate_size) * hidden_size);
  const int64_t all = layers * layer + int64_t{vocab_size} * hidden_size;
  const auto border = [&](int32_t index) -> int32_t {
    if (index <= 0) return 0;
    if (index >= which.count) return layers;
    const int64_t ideal = (2 * all / which.count * index + layer) / (2 * layer);
    return static_cast<int32_t>(
        std::clamp<int64_t>(ideal, index, layers - (which.count - index)));
  };
  return {border(which.index), border(which.index + 1)};
}

absl::StatusOr<ModelConfig> LoadModelConfig(
    const std::string& directory, const std::vector<std::string>& overrides) {
  const std::string path = StrCat(directory, "/config.json");
  std::error_code error;
  if (!std::filesystem::exists(path, error) &&
      MetaCheckpoint::IsIn(directory)) {
    CARAVAN_ASSIGN_OR_RETURN(const auto checkpoint,
                             MetaCheckpoint::Open(directory));
    return FromJson(checkpoint->config(), StrCat(directory, "/params.json"),
                    overrides);
  }
  if (!std::filesystem::exists(path, error) &&
      GgufCheckpoint::IsIn(directory)) {
    return FromGguf(directory, overrides);
  }
  CARAVAN_ASSIGN_OR_RETURN(json object, ReadJsonObject(path, JsonLimits()));
  return FromJson(std::move(object), path, overrides);
}

absl::StatusOr<ModelConfig> ParseModelConfig(
    std::string_view text, std::string_view file,
    const std::vector<std::string>& overrides) {
  CARAVAN_ASSIGN_OR_RETURN(json object,
                           ParseJsonObject(text, file, JsonLimits()));
  return FromJson(std::move(object), file, overrides);
}

absl::Status CheckStage(std::string_view flag, const Stage& stage,
                        const ModelConfig& config) {
  if (stage.count < 1 || stage.count > config.layers) {
    return FieldError(
        flag, StrCat("a stage of 1 to ", config.layers, ", the model's layers"),
        StrCat(stage.count, " stages"));
  }
  if (stage.index >= 0 && stage.index < stage.count) return absl::OkStatus();
  return FieldError(flag, StrCat("a stage in [0, ", stage.count, ")"),
                    StrCat(stage.index));
}

}  // namespace caravan::worker
