#include "worker/model/weights_policy.h"

#include <cstdint>

#include "common/status/errors.h"
#include "worker/model/gguf_plan.h"
#include "worker/tensor/fp8.h"

namespace caravan::worker {
namespace {

// Bits of 256 elements.
int64_t BitsOf(WeightType type) { return 8 * RowBytes(type, 256); }

// What checkpoints of fp8 are: matrices of layers.
WeightType TypeBesideFp8(const TensorSpec& tensor) {
  const bool layer = tensor.group != TensorGroup::kHead &&
                     tensor.group != TensorGroup::kEmbedding;
  return layer && tensor.cols % kFp8Block == 0 ? WeightType::kFp8
                                               : WeightType::kBf16;
}

}  // namespace

absl::StatusOr<WeightsPolicy> WeightsPolicy::Parse(std::string_view text) {
  WeightsPolicy policy;
  if (text == "keep") return policy;
  for (const WeightType type : {WeightType::kBf16, WeightType::kFp8,
                                WeightType::kQ8_0, WeightType::kQ4_0}) {
    if (text == worker::Name(type)) policy.target_ = type;
  }
  if (policy.keeps()) {
    return FieldError("--weights", "keep, bf16, fp8, q8_0 or q4_0", text);
  }
  return policy;
}

WeightType WeightsPolicy::TypeFor(const TensorSpec& tensor,
                                  bool tied_embeddings,
                                  WeightType loaded) const {
  if (keeps() || tensor.cols == 0) return loaded;
  const WeightType type = target_ == WeightType::kFp8
                              ? TypeBesideFp8(tensor)
                              : WrittenType(tensor, tied_embeddings, *target_);
  if (IsPlain(loaded)) return type;
  return BitsOf(type) < BitsOf(loaded) ? type : loaded;
}

void ApplyPolicy(const WeightsPolicy& policy, ModelConfig config, int threads,
                 CheckpointTensors* checkpoint) {
  if (policy.keeps()) return;
  config.stage = Stage();
  for (const TensorSpec& spec : AllTensors(MakeLayout(config))) {
    const CheckpointTensor* const tensor = checkpoint->Find(spec.name);
    if (tensor == nullptr || spec.cols == 0 || tensor->cols() != spec.cols) {
      continue;
    }
    // Columns in another order are loaded as fp32.
    const WeightType loaded =
        tensor->order.empty() ? tensor->type : WeightType::kFp32;
    const WeightType type =
        policy.TypeFor(spec, config.tied_embeddings, loaded);
    if (type == loaded) continue;
    checkpoint->Convert(spec.name, type, config.head_dim, threads);
  }
}

}  // namespace caravan::worker
