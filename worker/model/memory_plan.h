// How much memory a model takes, before any is taken: what `caravan plan`
// prints is what the worker allocates. Needs a configuration and a backend,
// but no weights.
#ifndef CARAVAN_WORKER_MODEL_MEMORY_PLAN_H_
#define CARAVAN_WORKER_MODEL_MEMORY_PLAN_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "worker/model/config.h"
#include "worker/model/layout.h"
#include "worker/ops/backend.h"
#include "worker/tensor/dtype.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

struct MemoryPlanOptions {
  int32_t max_step_tokens = 512;
  int32_t max_logits_rows = 64;
};

// Tensors of one group.
struct GroupPlan {
  TensorGroup group = TensorGroup::kEmbedding;
  int64_t parameters = 0;
  size_t checkpoint_bytes = 0;  // in the weights' type
  size_t packed_bytes = 0;      // as the backend holds them
};

struct MemoryPlan {
  int64_t parameters = 0;  // tied tables counted once
  std::array<GroupPlan, kTensorGroupCount> groups;
  size_t checkpoint_bytes = 0;
  size_t weight_bytes = 0;    // packed matrices and fp32 vectors
  size_t arena_bytes = 0;     // activations and logits
  size_t scratch_bytes = 0;   // of the backend
  size_t kv_block_bytes = 0;  // of one block of 16 tokens, all layers
  size_t kv_bytes_per_token = 0;

  // Everything but the KV cache.
  size_t fixed_bytes() const {
    return weight_bytes + arena_bytes + scratch_bytes;
  }
};

// `dtype` is that of the weights: MatrixDType() of a checkpoint, or
// PlannedDType() where there is none.
MemoryPlan MakeMemoryPlan(const ModelConfig& config, DType dtype,
                          const Backend& backend,
                          const MemoryPlanOptions& options);

// The same where tensors, by their Hugging Face names, have types of their own.
using TensorTypes = std::function<WeightType(const std::string& name)>;
MemoryPlan MakeMemoryPlan(const ModelConfig& config, const TensorTypes& types,
                          const Backend& backend,
                          const MemoryPlanOptions& options);

// The matrices of the configuration's stage as the backend will pack them.
std::vector<MatrixShape> MatrixShapes(const ModelConfig& config,
                                      const TensorTypes& types,
                                      const Backend& backend);

// Of the types, those of which the backend packs exact fp32 copies, having no
// kernel for them.
WeightTypes WidenedTypes(const Backend& backend, WeightTypes types);

// config.json's torch_dtype; fp32 where it has none.
DType PlannedDType(const ModelConfig& config);

// What the backend's scratch is sized for.
ScratchSpec ScratchSpecOf(const ModelConfig& config, int32_t max_step_tokens,
                          int32_t max_logits_rows);

// What the KV cache is asked for.
KvSpec KvSpecOf(const ModelConfig& config, int32_t block_count);

// The most blocks whose cache is at most `bytes`, up to `most`; 0 if none.
int32_t BlocksThatFit(const ModelConfig& config, const Backend& backend,
                      size_t bytes, int32_t most);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_MEMORY_PLAN_H_
