// The weights of a model, packed for a backend.
#ifndef CARAVAN_WORKER_MODEL_WEIGHTS_H_
#define CARAVAN_WORKER_MODEL_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/checkpoint_tensors.h"
#include "worker/model/config.h"
#include "worker/model/hashing.h"
#include "worker/ops/backend.h"
#include "worker/tensor/dtype.h"

namespace caravan::worker {

// Vectors are fp32 whatever their type in the checkpoint; empty biases are
// absent ones.
struct LayerWeights {
  std::vector<float> attention_norm;
  std::unique_ptr<PackedMatrix> qkv;
  std::vector<float> qkv_bias;
  std::unique_ptr<PackedMatrix> output;
  std::vector<float> output_bias;
  std::vector<float> feed_forward_norm;
  std::unique_ptr<PackedMatrix> gate_up;
  std::vector<float> gate_bias;
  std::vector<float> up_bias;
  std::unique_ptr<PackedMatrix> down;
  std::vector<float> down_bias;
};

// Of a stage: what it does not have is null or empty.
struct Weights {
  std::unique_ptr<PackedMatrix> embedding;  // null where `head` serves as both
  std::vector<LayerWeights> layers;         // of the stage
  std::vector<float> final_norm;
  std::unique_ptr<PackedMatrix> head;

  WeightsListing listing;  // of what was loaded
  std::string id;          // of `listing`: DESIGN.md 1.2, hex
  size_t bytes = 0;        // as allocated: MemoryPlan::weight_bytes

  const PackedMatrix* embedding_table() const {
    return embedding != nullptr ? embedding.get() : head.get();
  }
};

// Called with percent in [0, 100], not descending, on the loading thread.
using LoadProgress = std::function<void(int percent)>;

// The type in which the checkpoint's matrices are packed, without loading: that
// of its first q_proj, or fp32 where some matrices are quantized.
absl::StatusOr<DType> MatrixDType(const CheckpointTensors& checkpoint);

// The type in which LoadWeights hands a tensor to the backend; `otherwise`
// where the checkpoint has none of that name.
WeightType LoadedType(const CheckpointTensors& checkpoint,
                      const std::string& name, DType otherwise);

// Hashes and packs every tensor of the configuration; pages of the checkpoint
// are dropped as they are done with. Errors (kModelFileInvalid) name file and
// tensor: missing ones, shapes that differ from the configuration's, types
// that are not fp32, bf16 or fp16, plain matrices of more than one type.
absl::StatusOr<Weights> LoadWeights(const ModelConfig& config,
                                    const CheckpointTensors& checkpoint,
                                    Backend* backend,
                                    const LoadProgress& progress);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_WEIGHTS_H_
