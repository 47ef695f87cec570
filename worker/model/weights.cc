#include "worker/model/weights.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/hashing.h"
#include "worker/model/json_file.h"
#include "worker/model/layout.h"

namespace caravan::worker {
namespace {

std::string ShapeText(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    StrAppend(&text, i > 0 ? ", " : "", shape[i]);
  }
  return text + "]";
}

absl::Status RecordError(const TensorRecord& tensor, std::string_view what,
                         std::string_view limit, std::string_view value) {
  return ModelFileError(
      tensor.file,
      StrCat("tensor ", tensor.name, " at offset ", tensor.offset, ": ", what),
      limit, value);
}

float ElementOf(const TensorRecord& tensor, DType dtype, int64_t i) {
  uint32_t wide = 0;
  uint16_t narrow = 0;
  const std::byte* const source =
      tensor.data + static_cast<size_t>(i) * SizeOf(dtype);
  if (dtype == DType::kFp32) {
    std::memcpy(&wide, source, sizeof(wide));
    return std::bit_cast<float>(wide);
  }
  std::memcpy(&narrow, source, sizeof(narrow));
  return dtype == DType::kBf16 ? ToFloat(Bf16{narrow}) : ToFloat(Fp16{narrow});
}

// Loads tensor after tensor of one checkpoint.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, Backend* backend, DType dtype,
         int64_t element_count, const LoadProgress& progress)
      : checkpoint_(checkpoint),
        backend_(backend),
        dtype_(dtype),
        element_count_(element_count),
        progress_(progress) {}

  absl::Status Matrix(const MatrixSpec& spec,
                      std::unique_ptr<PackedMatrix>& target);
  absl::Status Vector(const VectorSpec& spec, std::vector<float>& target);
  absl::Status Layer(const LayerLayout& layout, LayerWeights& layer);

  size_t bytes() const { return bytes_; }
  std::string Id() const { return listing_.Id(); }

 private:
  // The record, hashed, with shape and type checked.
  absl::StatusOr<const TensorRecord*> Take(const TensorSpec& spec);
  void Done(const TensorRecord& tensor, int64_t elements);

  const Checkpoint& checkpoint_;
  Backend* const backend_;
  const DType dtype_;
  const int64_t element_count_;
  const LoadProgress& progress_;
  WeightsListing listing_;
  size_t bytes_ = 0;
  int64_t elements_done_ = 0;
};

absl::StatusOr<const TensorRecord*> Loader::Take(const TensorSpec& spec) {
  CARAVAN_ASSIGN_OR_RETURN(const TensorRecord* const tensor,
                           checkpoint_.Get(spec.name));
  std::vector<int64_t> expected = {spec.rows};
  if (spec.cols > 0) expected.push_back(spec.cols);
  if (tensor->shape != expected) {
    return RecordError(*tensor, "shape",
                       StrCat(ShapeText(expected), " by config.json"),
                       ShapeText(tensor->shape));
  }
  if (!tensor->dtype()) {
    return RecordError(*tensor, "dtype", "F32, BF16 or F16",
                       tensor->dtype_name);
  }
  if (spec.cols > 0 && *tensor->dtype() != dtype_) {
    return RecordError(*tensor, "dtype",
                       StrCat(Name(dtype_), ", as the other matrices"),
                       tensor->dtype_name);
  }
  listing_.Add(*tensor);
  return tensor;
}

void Loader::Done(const TensorRecord& tensor, int64_t elements) {
  checkpoint_.DropPages(tensor);
  elements_done_ += elements;
  if (progress_) {
    // A tied table that is packed twice counts twice.
    progress_(static_cast<int>(
        std::min<int64_t>(100, 100 * elements_done_ / element_count_)));
  }
}

absl::Status Loader::Matrix(const MatrixSpec& spec,
                            std::unique_ptr<PackedMatrix>& target) {
  std::vector<const TensorRecord*> records;
  std::vector<RawMatrix> parts;
  for (const TensorSpec& part : spec.parts) {
    CARAVAN_ASSIGN_OR_RETURN(const TensorRecord* const tensor, Take(part));
    records.push_back(tensor);
    parts.push_back({tensor->data, dtype_, part.rows, part.cols});
  }
  CARAVAN_ASSIGN_OR_RETURN(target, backend_->Pack(parts, spec.pack));
  bytes_ += target->bytes;
  for (size_t i = 0; i < records.size(); ++i) {
    Done(*records[i], spec.parts[i].elements());
  }
  return absl::OkStatus();
}

absl::Status Loader::Vector(const VectorSpec& spec,
                            std::vector<float>& target) {
  for (const TensorSpec& part : spec) {
    CARAVAN_ASSIGN_OR_RETURN(const TensorRecord* const tensor, Take(part));
    target.reserve(target.size() + part.rows);
    for (int64_t i = 0; i < part.rows; ++i) {
      target.push_back(ElementOf(*tensor, *tensor->dtype(), i));
    }
    bytes_ += part.rows * sizeof(float);
    Done(*tensor, part.elements());
  }
  return absl::OkStatus();
}

absl::Status Loader::Layer(const LayerLayout& layout, LayerWeights& layer) {
  CARAVAN_RETURN_IF_ERROR(Vector(layout.attention_norm, layer.attention_norm));
  CARAVAN_RETURN_IF_ERROR(Matrix(layout.qkv, layer.qkv));
  CARAVAN_RETURN_IF_ERROR(Vector(layout.qkv_bias, layer.qkv_bias));
  CARAVAN_RETURN_IF_ERROR(Matrix(layout.output, layer.output));
  CARAVAN_RETURN_IF_ERROR(Vector(layout.output_bias, layer.output_bias));
  CARAVAN_RETURN_IF_ERROR(
      Vector(layout.feed_forward_norm, layer.feed_forward_norm));
  CARAVAN_RETURN_IF_ERROR(Matrix(layout.gate_up, layer.gate_up));
  CARAVAN_RETURN_IF_ERROR(Vector(layout.gate_bias, layer.gate_bias));
  CARAVAN_RETURN_IF_ERROR(Vector(layout.up_bias, layer.up_bias));
  CARAVAN_RETURN_IF_ERROR(Matrix(layout.down, layer.down));
  return Vector(layout.down_bias, layer.down_bias);
}

// The table of tied embeddings, once or twice, hashed once.
absl::Status LoadTied(const ModelLayout& layout, Backend* backend,
                      Loader& loader, Weights& weights) {
  CARAVAN_RETURN_IF_ERROR(loader.Matrix(layout.TiedHead(), weights.head));
  if (backend->CanEmbedFromHead()) return absl::OkStatus();
  return loader.Matrix(layout.embedding, weights.embedding);
}

absl::Status LoadAll(const ModelLayout& layout, Backend* backend,
                     Loader& loader, Weights& weights) {
  if (layout.head) {
    CARAVAN_RETURN_IF_ERROR(loader.Matrix(layout.embedding, weights.embedding));
    CARAVAN_RETURN_IF_ERROR(loader.Matrix(*layout.head, weights.head));
  } else {
    CARAVAN_RETURN_IF_ERROR(LoadTied(layout, backend, loader, weights));
  }
  for (const LayerLayout& layer : layout.layers) {
    CARAVAN_RETURN_IF_ERROR(loader.Layer(layer, weights.layers.emplace_back()));
  }
  return loader.Vector(layout.final_norm, weights.final_norm);
}

}  // namespace

absl::StatusOr<DType> MatrixDType(const Checkpoint& checkpoint) {
  CARAVAN_ASSIGN_OR_RETURN(
      const TensorRecord* const tensor,
      checkpoint.Get("model.layers.0.self_attn.q_proj.weight"));
  if (tensor->dtype()) return *tensor->dtype();
  return RecordError(*tensor, "dtype", "F32, BF16 or F16", tensor->dtype_name);
}

absl::StatusOr<Weights> LoadWeights(const ModelConfig& config,
                                    const Checkpoint& checkpoint,
                                    Backend* backend,
                                    const LoadProgress& progress) {
  const ModelLayout layout = MakeLayout(config);
  int64_t elements = 0;
  for (const TensorSpec& tensor : AllTensors(layout)) {
    elements += tensor.elements();
  }
  Weights weights;
  CARAVAN_ASSIGN_OR_RETURN(weights.dtype, MatrixDType(checkpoint));
  Loader loader(checkpoint, backend, weights.dtype, elements, progress);
  CARAVAN_RETURN_IF_ERROR(LoadAll(layout, backend, loader, weights));
  weights.id = loader.Id();
  weights.bytes = loader.bytes();
  return weights;
}

}  // namespace caravan::worker
