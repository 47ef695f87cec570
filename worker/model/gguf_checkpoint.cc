#include "worker/model/gguf_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/gguf_names.h"

namespace caravan::worker {
namespace {

using nlohmann::json;

constexpr std::string_view kRopeFrequencies = "rope_freqs.weight";
constexpr double kMostStretch = 1e6;  // of the context by rope scaling

std::optional<WeightType> TypeOf(std::string_view name) {
  if (name == "f32") return WeightType::kFp32;
  if (name == "f16") return WeightType::kFp16;
  return WeightTypeFromName(name);
}

}  // namespace

bool GgufCheckpoint::IsIn(const std::string& path) {
  const auto found = gguf::FindFile(path);
  return !found.ok() || found->has_value();
}

absl::StatusOr<std::unique_ptr<GgufCheckpoint>> GgufCheckpoint::Open(
    const std::string& path) {
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<std::string> found,
                           gguf::FindFile(path));
  if (!found) {
    return MakeError(Reason::kNotFound, StrCat(path, ": has no GGUF file"),
                     {{"file", path}});
  }
  std::unique_ptr<GgufCheckpoint> checkpoint(new GgufCheckpoint());
  checkpoint->path_ = *found;
  CARAVAN_RETURN_IF_ERROR(checkpoint->OpenParts());
  CARAVAN_RETURN_IF_ERROR(checkpoint->ReadConfig());
  for (size_t i = 0; i < checkpoint->parts_.size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(
        checkpoint->AddTensors(checkpoint->parts_[i], checkpoint->files_[i]));
  }
  return checkpoint;
}

absl::Status GgufCheckpoint::OpenParts() {
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<std::string> paths,
                           gguf::PartsOf(path_));
  for (const std::string& path : paths) {
    CARAVAN_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
    CARAVAN_ASSIGN_OR_RETURN(gguf::File file,
                             gguf::File::Parse(mapped.bytes(), path));
    const auto part = static_cast<int64_t>(parts_.size());
    CARAVAN_RETURN_IF_ERROR(file.Integer("split.no", part, part).status());
    files_.push_back(std::move(mapped));
    parts_.push_back(std::move(file));
  }
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<std::string> architecture,
                           parts_[0].String("general.architecture"));
  if (architecture == "llama") return absl::OkStatus();
  return UnsupportedError(
      StrCat(path_, ": general.architecture=", architecture.value_or("none")),
      "only llama is read");
}

bool GgufCheckpoint::Has(std::string_view name) const {
  return std::ranges::any_of(parts_, [name](const gguf::File& file) {
    return file.FindTensor(name) != nullptr;
  });
}

absl::Status GgufCheckpoint::Copy(std::string_view from, const char* key,
                                  bool required) {
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<int64_t> value,
                           parts_[0].Integer(from, 0, INT32_MAX));
  if (value) {
    config_[key] = *value;
  } else if (required) {
    return parts_[0].Error(from, "there", "nothing");
  }
  return absl::OkStatus();
}

absl::Status GgufCheckpoint::ReadConfig() {
  const gguf::File& file = parts_[0];
  config_ = {{"model_type", "llama"}};
  CARAVAN_RETURN_IF_ERROR(Copy("llama.embedding_length", "hidden_size", true));
  CARAVAN_RETURN_IF_ERROR(
      Copy("llama.feed_forward_length", "intermediate_size", true));
  CARAVAN_RETURN_IF_ERROR(Copy("llama.block_count", "num_hidden_layers", true));
  CARAVAN_RETURN_IF_ERROR(
      Copy("llama.attention.head_count", "num_attention_heads", true));
  CARAVAN_RETURN_IF_ERROR(
      Copy("llama.attention.head_count_kv", "num_key_value_heads", false));
  CARAVAN_RETURN_IF_ERROR(
      Copy("llama.attention.key_length", "head_dim", false));
  CARAVAN_RETURN_IF_ERROR(
      Copy("llama.context_length", "max_position_embeddings", true));
  CARAVAN_RETURN_IF_ERROR(
      Copy("tokenizer.ggml.bos_token_id", "bos_token_id", false));
  const gguf::Tensor* const table = file.FindTensor("token_embd.weight");
  if (table == nullptr) {
    return file.Error("tensor token_embd.weight", "there", "nothing");
  }
  config_["vocab_size"] = table->shape[0];
  config_["tie_word_embeddings"] = !Has("output.weight");
  config_["attention_bias"] = Has("blk.0.attn_q.bias");
  config_["mlp_bias"] = Has("blk.0.ffn_down.bias");
  CARAVAN_ASSIGN_OR_RETURN(
      const std::optional<double> epsilon,
      file.Number("llama.attention.layer_norm_rms_epsilon"));
  if (epsilon) config_["rms_norm_eps"] = *epsilon;
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<double> theta,
                           file.Number("llama.rope.freq_base"));
  config_["rope_theta"] = theta.value_or(10000.0);
  json ends = json::array();
  for (const char* const key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id"}) {
    CARAVAN_ASSIGN_OR_RETURN(const std::optional<int64_t> id,
                             file.Integer(key, 0, UINT32_MAX));
    if (id && *id < table->shape[0]) ends.push_back(*id);
  }
  if (!ends.empty()) config_["eos_token_id"] = std::move(ends);
  return ReadRopeScaling();
}

// Converters write the stretched context already.
absl::Status GgufCheckpoint::ReadRopeScaling() {
  const gguf::File& file = parts_[0];
  CARAVAN_ASSIGN_OR_RETURN(std::optional<std::string> type,
                           file.String("llama.rope.scaling.type"));
  CARAVAN_ASSIGN_OR_RETURN(std::optional<double> factor,
                           file.Number("llama.rope.scaling.factor"));
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<double> legacy,
                           file.Number("llama.rope.scale_linear"));
  if (!type && legacy) {
    type = "linear";
    factor = legacy;
  }
  if (!type || *type == "none" || factor.value_or(1) == 1) {
    return absl::OkStatus();
  }
  if (!(*factor >= 1 && *factor <= kMostStretch)) {
    return file.Error("llama.rope.scaling.factor",
                      StrCat("in [1, ", kMostStretch, "]"), StrCat(*factor));
  }
  json scaling = {{"type", *type}, {"factor", *factor}};
  CARAVAN_ASSIGN_OR_RETURN(
      const std::optional<int64_t> original,
      file.Integer("llama.rope.scaling.original_context_length", 1, INT32_MAX));
  const int64_t context = config_["max_position_embeddings"].get<int64_t>();
  if (*type == "yarn") {
    scaling["original_max_position_embeddings"] = original.value_or(
        static_cast<int64_t>(static_cast<double>(context) / *factor));
  } else if (*type == "linear") {
    config_["max_position_embeddings"] =
        static_cast<int64_t>(static_cast<double>(context) / *factor);
  }
  config_["rope_scaling"] = std::move(scaling);
  return absl::OkStatus();
}

absl::Status GgufCheckpoint::AddTensors(const gguf::File& file,
                                        const MappedFile& mapped) {
  for (const gguf::Tensor& tensor : file.tensors()) {
    CARAVAN_RETURN_IF_ERROR(AddTensor(file, mapped, tensor));
  }
  return absl::OkStatus();
}

absl::Status GgufCheckpoint::AddTensor(const gguf::File& file,
                                       const MappedFile& mapped,
                                       const gguf::Tensor& tensor) {
  if (tensor.name == kRopeFrequencies) {
    return AddRopeDivisors(file, mapped, tensor);
  }
  const std::optional<std::string> name = HuggingFaceName(tensor.name);
  if (!name) return absl::OkStatus();  // of no use to a Llama
  const std::optional<WeightType> type = TypeOf(tensor.type->name);
  if (!type) {
    return file.Error(StrCat("type of tensor ", tensor.name),
                      "one that weights have here", tensor.type->name);
  }
  GgufTensor& added = tensors_.emplace_back();
  added.name = *name;
  added.type = *type;
  if (HasRotatedRows(*name)) {
    const int64_t heads = config_["num_attention_heads"].get<int64_t>();
    added.interleaved =
        config_.value("head_dim", config_["hidden_size"].get<int64_t>() /
                                      std::max<int64_t>(heads, 1));
    if (added.interleaved < 2 || added.interleaved % 2 != 0 ||
        tensor.shape[0] % added.interleaved != 0) {
      return file.Error(
          StrCat("rows of tensor ", tensor.name),
          StrCat("whole heads of an even size; that is ", added.interleaved),
          StrCat(tensor.shape[0]));
    }
  }
  added.record = {.name = tensor.name,
                  .dtype_name = std::string(tensor.type->name),
                  .shape = tensor.shape,
                  .offset = tensor.offset,
                  .bytes = tensor.bytes,
                  .data = mapped.data() + tensor.offset,
                  .file = file.file()};
  return absl::OkStatus();
}

absl::Status GgufCheckpoint::AddRopeDivisors(const gguf::File& file,
                                             const MappedFile& mapped,
                                             const gguf::Tensor& tensor) {
  const std::string what = StrCat("tensor ", tensor.name);
  if (tensor.type->name != "f32" || tensor.shape.size() != 1) {
    return file.Error(what, "a vector of f32", tensor.type->name);
  }
  rope_divisors_.resize(static_cast<size_t>(tensor.shape[0]));
  std::memcpy(rope_divisors_.data(), mapped.data() + tensor.offset,
              rope_divisors_.size() * sizeof(float));
  for (const float divisor : rope_divisors_) {
    if (!std::isfinite(divisor) || divisor <= 0) {
      return file.Error(what, "above zero", StrCat(divisor));
    }
  }
  return absl::OkStatus();
}

}  // namespace caravan::worker
