// What lies where in a GGUF file of a model, before its bytes are there: so
// that they can be written in any order.
#ifndef CARAVAN_WORKER_MODEL_GGUF_PLAN_H_
#define CARAVAN_WORKER_MODEL_GGUF_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/config.h"
#include "worker/model/layout.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

struct PlannedTensor {
  TensorSpec spec;
  WeightType type = WeightType::kFp32;
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;
};

struct GgufPlan {
  std::string header;  // metadata, tensors, tokenizer: the file's first bytes
  std::vector<PlannedTensor> tensors;  // in the order of the layers
  // What llama3 divides each rotation's frequency by; empty for others.
  std::vector<float> rope_divisors;
  uint64_t rope_divisors_offset = 0;
  uint64_t bytes = 0;      // of the file; what no one writes is zero
  int64_t parameters = 0;  // of all tensors
};

// The type of a tensor in a file of `type`, one that CanQuantize(). Where rows
// are no whole blocks of it: q5_0 for q4_k, q8_0 for q6_k, fp16 where rows are
// no multiple of 32. The head, or the tied table, of a type below 6 bits is
// q6_k. Vectors are fp32.
WeightType WrittenType(const TensorSpec& tensor, bool tied_embeddings,
                       WeightType type);

// A file of architecture "llama", its tensors of their WrittenType(). The
// tokenizer is that of the model `tokenizer`. kUnsupportedParameter for what
// GGUF files cannot say.
absl::StatusOr<GgufPlan> PlanGguf(const ModelConfig& config, WeightType type,
                                  const std::string& tokenizer);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_GGUF_PLAN_H_
