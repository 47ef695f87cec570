#include "worker/model/meta_checkpoint.h"

#include <array>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"

namespace caravan::worker {
namespace {

using nlohmann::json;

constexpr int kMostFiles = 100;  // two digits
constexpr int64_t kMostSize = int64_t{1} << 20;
constexpr int64_t kLlama3Vocabulary = 128256;
constexpr double kLlama3Theta = 500000;
constexpr double kCodeLlamaTheta = 1e6;

// How a matrix of a layer is divided among the files.
struct LayerRule {
  std::string_view name;    // Meta's, in the layer
  std::string_view target;  // Hugging Face's
  int axis;                 // -1: the same in all files
};
constexpr std::array<LayerRule, 9> kLayerRules = {{
    {"attention_norm.weight", "input_layernorm.weight", -1},
    {"attention.wq.weight", "self_attn.q_proj.weight", 0},
    {"attention.wk.weight", "self_attn.k_proj.weight", 0},
    {"attention.wv.weight", "self_attn.v_proj.weight", 0},
    {"attention.wo.weight", "self_attn.o_proj.weight", 1},
    {"ffn_norm.weight", "post_attention_layernorm.weight", -1},
    {"feed_forward.w1.weight", "mlp.gate_proj.weight", 0},
    {"feed_forward.w3.weight", "mlp.up_proj.weight", 0},
    {"feed_forward.w2.weight", "mlp.down_proj.weight", 1},
}};

std::string FileName(int number) {
  return StrCat("consolidated.", number < 10 ? "0" : "", number, ".pth");
}

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

absl::Status TensorError(const TensorRecord& tensor, std::string_view what,
                         std::string_view limit, std::string_view value) {
  return ModelFileError(
      tensor.file,
      StrCat("tensor ", tensor.name, " at offset ", tensor.offset, ": ", what),
      limit, value);
}

std::string ShapeText(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    StrAppend(&text, text.size() > 1 ? ", " : "", size);
  }
  return text + "]";
}

bool SameBytes(const TorchTensor& a, const TorchTensor& b) {
  return a.strides == b.strides && a.record.bytes == b.record.bytes &&
         std::memcmp(a.record.data, b.record.data, a.record.bytes) == 0;
}

// The longest context that a model was made for, which params.json does not
// say: told from what differs between the generations.
int64_t ContextOf(double theta, bool scaled, double epsilon, int64_t dim,
                  bool has_kv_heads) {
  constexpr int64_t kLlama1Width65B = 8192;
  if (scaled) return 131072;
  if (theta == kLlama3Theta) return 8192;
  if (theta == kCodeLlamaTheta) return 16384;
  const bool llama1 =
      epsilon < 5e-6 || (dim == kLlama1Width65B && !has_kv_heads);
  return llama1 ? 2048 : 4096;
}

// The scaling of Llama-3.1 and later; the small models of 3.2 stretch more.
json ScalingOf(const std::optional<double>& factor, int64_t dim) {
  constexpr int64_t kWidth3B = 3072;
  return {{"rope_type", "llama3"},
          {"factor", factor.value_or(dim <= kWidth3B ? 32.0 : 8.0)},
          {"low_freq_factor", 1.0},
          {"high_freq_factor", 4.0},
          {"original_max_position_embeddings", 8192}};
}

}  // namespace

void CopyMerged(const MergedTensor& tensor, std::byte* target) {
  if (tensor.parts.size() == 1 || tensor.axis == 0) {
    for (const TorchTensor* const part : tensor.parts) {
      CopyTensor(*part, target);
      target += part->record.bytes;
    }
    return;
  }
  const size_t rows = static_cast<size_t>(tensor.record.shape[0]);
  const size_t row_bytes = rows == 0 ? 0 : tensor.record.bytes / rows;
  size_t at = 0;
  std::vector<std::byte> copy;
  for (const TorchTensor* const part : tensor.parts) {
    copy.resize(part->record.bytes);
    CopyTensor(*part, copy.data());
    const size_t width = rows == 0 ? 0 : copy.size() / rows;
    for (size_t r = 0; r < rows; ++r) {
      std::memcpy(target + r * row_bytes + at, copy.data() + r * width, width);
    }
    at += width;
  }
}

bool MetaCheckpoint::IsIn(const std::string& directory) {
  return Exists(StrCat(directory, "/params.json")) &&
         Exists(StrCat(directory, "/", FileName(0)));
}

absl::StatusOr<std::unique_ptr<MetaCheckpoint>> MetaCheckpoint::Open(
    const std::string& directory) {
  std::unique_ptr<MetaCheckpoint> checkpoint(new MetaCheckpoint(directory));
  CARAVAN_RETURN_IF_ERROR(checkpoint->ReadParams());
  CARAVAN_RETURN_IF_ERROR(checkpoint->OpenFiles());
  CARAVAN_RETURN_IF_ERROR(checkpoint->MergeAll());
  CARAVAN_RETURN_IF_ERROR(checkpoint->FinishConfig());
  return checkpoint;
}

absl::Status MetaCheckpoint::ReadParams() {
  const std::string path = StrCat(directory_, "/params.json");
  CARAVAN_ASSIGN_OR_RETURN(params_, ReadJsonObject(path, JsonLimits()));
  const JsonReader reader(&params_, path);
  for (const std::string_view key :
       {"vision_chunk_size", "vision_num_cross_attention_layers", "moe_args"}) {
    if (const json* const value = reader.Find(key);
        value != nullptr && *value != json(-1)) {
      return reader.Error(key, "absent: only text models are read",
                          Excerpt(*value));
    }
  }
  CARAVAN_ASSIGN_OR_RETURN(dim_, reader.RequiredInt("dim", 1, kMostSize));
  CARAVAN_ASSIGN_OR_RETURN(layers_, reader.RequiredInt("n_layers", 1, 1024));
  CARAVAN_ASSIGN_OR_RETURN(heads_, reader.RequiredInt("n_heads", 1, 4096));
  CARAVAN_ASSIGN_OR_RETURN(const auto kv, reader.Int("n_kv_heads", 1, heads_));
  kv_heads_ = kv.value_or(heads_);
  if (dim_ % heads_ != 0 || dim_ / heads_ % 2 != 0) {
    return reader.Error("dim", StrCat("an even multiple of n_heads, ", heads_),
                        StrCat(dim_));
  }
  head_dim_ = dim_ / heads_;
  return absl::OkStatus();
}

absl::Status MetaCheckpoint::OpenFiles() {
  int count = 0;
  for (int i = 0; i < kMostFiles; ++i) {
    const std::string path = StrCat(directory_, "/", FileName(i));
    if (!Exists(path)) continue;
    if (i != count) {
      return ModelFileError(path, "number",
                            StrCat("one behind the file before it, ", count),
                            StrCat(i));
    }
    ++count;
    CARAVAN_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
    CARAVAN_ASSIGN_OR_RETURN(std::vector<TorchTensor> tensors,
                             ParseTorchFile({file.data(), file.size()}, path));
    Part& part = parts_.emplace_back();
    for (TorchTensor& tensor : tensors) {
      std::string name = tensor.record.name;
      part.emplace(std::move(name), std::move(tensor));
    }
    files_.push_back(std::move(file));
  }
  return absl::OkStatus();
}

absl::Status MetaCheckpoint::DropCopies(MergedTensor& tensor) const {
  const size_t files = tensor.parts.size();
  const size_t distinct = static_cast<size_t>(kv_heads_);
  const auto keep = [&](size_t step) {
    std::vector<const TorchTensor*> kept;
    for (size_t i = 0; i < distinct; ++i) {
      const TorchTensor* const first = tensor.parts[i * step];
      const size_t stride = step == 1 ? distinct : 1;
      for (size_t copy = 1; copy < files / distinct; ++copy) {
        if (!SameBytes(*first, *tensor.parts[i * step + copy * stride])) {
          return false;
        }
      }
      kept.push_back(first);
    }
    tensor.parts = std::move(kept);
    return true;
  };
  if (files % distinct == 0 && (keep(files / distinct) || keep(1))) {
    return absl::OkStatus();
  }
  return TensorError(tensor.parts[0]->record, "heads",
                     StrCat(distinct, " different ones in ", files, " files"),
                     "others");
}

absl::Status MetaCheckpoint::Merge(const std::string& name,
                                   const std::string& target, int axis,
                                   int64_t interleaved) {
  MergedTensor merged;
  merged.axis = axis < 0 ? 0 : axis;
  merged.interleaved = interleaved;
  for (size_t i = 0; i < (axis < 0 ? 1 : parts_.size()); ++i) {
    const auto found = parts_[i].find(name);
    if (found == parts_[i].end()) {
      return ModelFileError(
          StrCat(directory_, "/", FileName(static_cast<int>(i))),
          StrCat("tensor ", name), "in the file", "absence");
    }
    merged.parts.push_back(&found->second);
  }
  const TensorRecord& first = merged.parts[0]->record;
  for (const TorchTensor* const part : merged.parts) {
    if (part->record.shape == first.shape &&
        part->record.dtype_name == first.dtype_name &&
        first.shape.size() == (axis < 0 ? 1u : 2u)) {
      continue;
    }
    return TensorError(
        part->record, "shape and type",
        StrCat(axis < 0 ? "one size" : "two sizes", ", as in every file: ",
               ShapeText(first.shape), " of ", first.dtype_name),
        StrCat(ShapeText(part->record.shape), " of ", part->record.dtype_name));
  }
  const bool kv = name.ends_with("wk.weight") || name.ends_with("wv.weight");
  if (kv && parts_.size() > static_cast<size_t>(kv_heads_)) {
    CARAVAN_RETURN_IF_ERROR(DropCopies(merged));
  }
  const size_t count = merged.parts.size();
  merged.record = first;
  merged.record.name = target;
  merged.record.bytes = first.bytes * count;
  merged.record.shape[static_cast<size_t>(merged.axis)] *=
      static_cast<int64_t>(count);
  if (count > 1 || !merged.parts[0]->strides.empty()) {
    merged.record.data = nullptr;
  }
  tensors_.emplace(target, std::move(merged));
  return absl::OkStatus();
}

absl::Status MetaCheckpoint::MergeAll() {
  const auto embedding = parts_[0].find("tok_embeddings.weight");
  // Llama-3 divides the vocabulary, the older ones the width.
  const bool by_rows = embedding != parts_[0].end() &&
                       embedding->second.record.shape.size() == 2 &&
                       embedding->second.record.shape[1] == dim_;
  CARAVAN_RETURN_IF_ERROR(Merge("tok_embeddings.weight",
                                "model.embed_tokens.weight", by_rows ? 0 : 1,
                                /*interleaved=*/0));
  for (int64_t layer = 0; layer < layers_; ++layer) {
    for (const LayerRule& rule : kLayerRules) {
      const bool rotated = rule.name == "attention.wq.weight" ||
                           rule.name == "attention.wk.weight";
      CARAVAN_RETURN_IF_ERROR(
          Merge(StrCat("layers.", layer, ".", rule.name),
                StrCat("model.layers.", layer, ".", rule.target), rule.axis,
                rotated ? head_dim_ : 0));
    }
  }
  CARAVAN_RETURN_IF_ERROR(
      Merge("norm.weight", "model.norm.weight", /*axis=*/-1, 0));
  if (!parts_[0].contains("output.weight")) return absl::OkStatus();
  return Merge("output.weight", "lm_head.weight", /*axis=*/0, 0);
}

absl::Status MetaCheckpoint::FinishConfig() {
  const JsonReader reader(&params_, StrCat(directory_, "/params.json"));
  CARAVAN_ASSIGN_OR_RETURN(const auto epsilon, reader.Number("norm_eps", 0, 1));
  CARAVAN_ASSIGN_OR_RETURN(const auto theta,
                           reader.Number("rope_theta", 1.0001, 1e12));
  CARAVAN_ASSIGN_OR_RETURN(const auto scaled, reader.Bool("use_scaled_rope"));
  CARAVAN_ASSIGN_OR_RETURN(const auto factor,
                           reader.Number("rope_scaling_factor", 1, 65536));
  const auto rows = [&](std::string_view name) {
    return tensors_.find(name)->second.record.shape[0];
  };
  const int64_t vocabulary = rows("model.embed_tokens.weight");
  const bool llama3 = vocabulary >= kLlama3Vocabulary;
  config_ = {
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"hidden_act", "silu"},
      {"hidden_size", dim_},
      {"intermediate_size", rows("model.layers.0.mlp.gate_proj.weight")},
      {"num_hidden_layers", layers_},
      {"num_attention_heads", heads_},
      {"num_key_value_heads", kv_heads_},
      {"vocab_size", vocabulary},
      {"rms_norm_eps", epsilon.value_or(1e-5)},
      {"rope_theta", theta.value_or(llama3 ? kLlama3Theta : 10000)},
      {"tie_word_embeddings", !tensors_.contains("lm_head.weight")},
      {"bos_token_id", llama3 ? 128000 : 1},
      {"eos_token_id", llama3 ? json({128001, 128008, 128009}) : json(2)}};
  if (scaled.value_or(false)) config_["rope_scaling"] = ScalingOf(factor, dim_);
  config_["max_position_embeddings"] =
      ContextOf(config_["rope_theta"], scaled.value_or(false),
                epsilon.value_or(1e-5), dim_, reader.Has("n_kv_heads"));
  const std::string& type =
      tensors_.find("model.embed_tokens.weight")->second.record.dtype_name;
  config_["torch_dtype"] = type == "F32"    ? "float32"
                           : type == "BF16" ? "bfloat16"
                                            : "float16";
  return absl::OkStatus();
}

}  // namespace caravan::worker
