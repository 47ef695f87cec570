#include "worker/model/weights.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <thread>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"
#include "worker/model/layout.h"
#include "worker/tensor/buffer.h"

namespace caravan::worker {
namespace {

std::string ShapeText(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    StrAppend(&text, i > 0 ? ", " : "", shape[i]);
  }
  return text + "]";
}

absl::Status RecordError(const CheckpointTensor& tensor, std::string_view what,
                         std::string_view limit, std::string_view value) {
  return ModelFileError(
      tensor.file,
      StrCat("tensor ", tensor.name, " at offset ", tensor.offset, ": ", what),
      limit, value);
}

// Columns in another order are put right in fp32, which loses nothing.
WeightType TypeInMemory(const CheckpointTensor& tensor) {
  return tensor.order.empty() ? tensor.type : WeightType::kFp32;
}

// Loads tensor after tensor of one checkpoint.
class Loader {
 public:
  Loader(const CheckpointTensors& checkpoint, Backend* backend, DType dtype,
         int64_t element_count, const LoadProgress& progress)
      : checkpoint_(checkpoint),
        backend_(backend),
        dtype_(dtype),
        mixed_(checkpoint.mixed()),
        element_count_(element_count),
        progress_(progress) {}

  absl::Status Matrix(const MatrixSpec& spec,
                      std::unique_ptr<PackedMatrix>& target);
  absl::Status Vector(const VectorSpec& spec, std::vector<float>& target);
  absl::Status Layer(const LayerLayout& layout, LayerWeights& layer);

  size_t bytes() const { return bytes_; }
  const WeightsListing& listing() const { return listing_; }

 private:
  // The tensor, with shape and type checked.
  absl::StatusOr<const CheckpointTensor*> Take(const TensorSpec& spec);
  // Adds the tensor's bytes to the listing.
  void Hash(const CheckpointTensor& tensor);
  // The tensor as a backend takes it: in place, or with its bytes in `made`.
  absl::StatusOr<RawMatrix> Raw(const CheckpointTensor& tensor, int64_t cols,
                                std::vector<Buffer>& made) const;
  void Done(const CheckpointTensor& tensor, int64_t elements);

  const CheckpointTensors& checkpoint_;
  Backend* const backend_;
  const DType dtype_;
  const bool mixed_;  // matrices may have other types, and are widened
  const int64_t element_count_;
  const LoadProgress& progress_;
  WeightsListing listing_;
  size_t bytes_ = 0;
  int64_t elements_done_ = 0;
};

absl::StatusOr<const CheckpointTensor*> Loader::Take(const TensorSpec& spec) {
  CARAVAN_ASSIGN_OR_RETURN(const CheckpointTensor* const tensor,
                           checkpoint_.Get(spec.name));
  std::vector<int64_t> expected = {spec.rows};
  if (spec.cols > 0) expected.push_back(spec.cols);
  if (tensor->shape != expected) {
    return RecordError(*tensor, "shape",
                       StrCat(ShapeText(expected), " by config.json"),
                       ShapeText(tensor->shape));
  }
  if (spec.cols > 0 && !mixed_ && tensor->type != FromDType(dtype_)) {
    return RecordError(*tensor, "dtype",
                       StrCat(Name(dtype_), ", as the other matrices"),
                       tensor->parts[0].dtype_name);
  }
  return tensor;
}

void Loader::Hash(const CheckpointTensor& tensor) {
  for (const TensorRecord& part : tensor.parts) listing_.Add(part);
}

absl::StatusOr<RawMatrix> Loader::Raw(const CheckpointTensor& tensor,
                                      int64_t cols,
                                      std::vector<Buffer>& made) const {
  const bool ordered = tensor.order.empty();
  RawMatrix raw(tensor.data, TypeInMemory(tensor), tensor.rows(), cols);
  if (ordered) raw.interleaved = tensor.interleaved;
  if (raw.data != nullptr) return raw;
  CARAVAN_ASSIGN_OR_RETURN(
      Buffer buffer,
      Buffer::Allocate(static_cast<size_t>(raw.rows * raw.row_bytes())));
  if (ordered) {
    checkpoint_.ReadStored(tensor, buffer.data());
  } else {
    checkpoint_.ReadFloats(tensor, 0, tensor.rows(), buffer.As<float>());
  }
  raw.data = buffer.data();
  made.push_back(std::move(buffer));
  return raw;
}

void Loader::Done(const CheckpointTensor& tensor, int64_t elements) {
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
  std::vector<const CheckpointTensor*> tensors;
  std::vector<RawMatrix> parts;
  std::vector<Buffer> made;
  for (const TensorSpec& part : spec.parts) {
    CARAVAN_ASSIGN_OR_RETURN(const CheckpointTensor* const tensor, Take(part));
    tensors.push_back(tensor);
    CARAVAN_ASSIGN_OR_RETURN(const RawMatrix raw,
                             Raw(*tensor, part.cols, made));
    parts.push_back(raw);
  }
  {
    // A hash is of one thread; packing is of all, which wait for memory.
    const std::jthread hashing([&] {
      for (const CheckpointTensor* const tensor : tensors) Hash(*tensor);
    });
    CARAVAN_ASSIGN_OR_RETURN(target, backend_->Pack(parts, spec.pack));
  }
  bytes_ += target->bytes;
  for (size_t i = 0; i < tensors.size(); ++i) {
    Done(*tensors[i], spec.parts[i].elements());
  }
  return absl::OkStatus();
}

absl::Status Loader::Vector(const VectorSpec& spec,
                            std::vector<float>& target) {
  for (const TensorSpec& part : spec) {
    CARAVAN_ASSIGN_OR_RETURN(const CheckpointTensor* const tensor, Take(part));
    Hash(*tensor);
    const size_t first = target.size();
    target.resize(first + static_cast<size_t>(part.rows));
    checkpoint_.ReadFloats(*tensor, 0, part.rows, target.data() + first);
    bytes_ += part.rows * sizeof(float);
    Done(*tensor, part.elements());
  }
  return backend_->Keep(target);
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
  return loader.Matrix(*layout.embedding, weights.embedding);
}

// The checkpoint's parts of a matrix by type and shape; nothing where they are
// not as the configuration has them, which loading will say.
std::vector<RawMatrix> ShapesOf(const CheckpointTensors& checkpoint,
                                const MatrixSpec& spec) {
  std::vector<RawMatrix> parts;
  for (const TensorSpec& part : spec.parts) {
    const CheckpointTensor* const tensor = checkpoint.Find(part.name);
    const std::vector<int64_t> expected = {part.rows, part.cols};
    if (tensor == nullptr || tensor->shape != expected) return {};
    parts.emplace_back(nullptr, TypeInMemory(*tensor), part.rows, part.cols);
  }
  return parts;
}

// Memory of all matrices at once, so that its pages are rounded up only once.
absl::Status ReserveAll(const ModelLayout& layout,
                        const CheckpointTensors& checkpoint, Backend* backend) {
  std::vector<MatrixShape> shapes;
  for (const MatrixSpec& spec :
       PackedMatrices(layout, backend->CanEmbedFromHead())) {
    std::vector<RawMatrix> parts = ShapesOf(checkpoint, spec);
    if (parts.empty()) continue;
    shapes.push_back({spec.parts[0].name, std::move(parts), spec.pack});
  }
  return backend->ReservePacked(shapes);
}

absl::Status LoadAll(const ModelLayout& layout, Backend* backend,
                     Loader& loader, Weights& weights) {
  if (layout.tied()) {
    CARAVAN_RETURN_IF_ERROR(LoadTied(layout, backend, loader, weights));
  } else if (layout.embedding) {
    CARAVAN_RETURN_IF_ERROR(
        loader.Matrix(*layout.embedding, weights.embedding));
  }
  if (layout.head) {
    CARAVAN_RETURN_IF_ERROR(loader.Matrix(*layout.head, weights.head));
  }
  for (const LayerLayout& layer : layout.layers) {
    CARAVAN_RETURN_IF_ERROR(loader.Layer(layer, weights.layers.emplace_back()));
  }
  return loader.Vector(layout.final_norm, weights.final_norm);
}

}  // namespace

absl::StatusOr<DType> MatrixDType(const CheckpointTensors& checkpoint) {
  CARAVAN_ASSIGN_OR_RETURN(
      const CheckpointTensor* const tensor,
      checkpoint.Get("model.layers.0.self_attn.q_proj.weight"));
  if (checkpoint.mixed()) return DType::kFp32;
  return PlainDType(tensor->type).value_or(DType::kFp32);
}

WeightType LoadedType(const CheckpointTensors& checkpoint,
                      const std::string& name, DType otherwise) {
  const CheckpointTensor* const tensor = checkpoint.Find(name);
  return tensor == nullptr ? FromDType(otherwise) : TypeInMemory(*tensor);
}

absl::StatusOr<Weights> LoadWeights(const ModelConfig& config,
                                    const CheckpointTensors& checkpoint,
                                    Backend* backend,
                                    const LoadProgress& progress) {
  const ModelLayout layout = MakeLayout(config);
  int64_t elements = 0;
  for (const TensorSpec& tensor : AllTensors(layout)) {
    elements += tensor.elements();
  }
  Weights weights;
  CARAVAN_ASSIGN_OR_RETURN(const DType dtype, MatrixDType(checkpoint));
  CARAVAN_RETURN_IF_ERROR(ReserveAll(layout, checkpoint, backend));
  Loader loader(checkpoint, backend, dtype, elements, progress);
  CARAVAN_RETURN_IF_ERROR(LoadAll(layout, backend, loader, weights));
  weights.listing = loader.listing();
  weights.id = weights.listing.Id();
  weights.bytes = loader.bytes();
  return weights;
}

}  // namespace caravan::worker
