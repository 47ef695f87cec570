// --weights: the types in which matrices are kept, other than the checkpoint's.
#ifndef CARAVAN_WORKER_MODEL_WEIGHTS_POLICY_H_
#define CARAVAN_WORKER_MODEL_WEIGHTS_POLICY_H_

#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/model/checkpoint_tensors.h"
#include "worker/model/config.h"
#include "worker/model/layout.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

// Immutable; a plain value.
class WeightsPolicy {
 public:
  WeightsPolicy() = default;  // keeps
  // "keep", "bf16", "q8_0" or "q4_0"; kInvalidField names --weights.
  static absl::StatusOr<WeightsPolicy> Parse(std::string_view text);

  bool keeps() const { return !target_.has_value(); }
  // As parsed.
  std::string_view name() const { return target_ ? Name(*target_) : "keep"; }

  // The type of a matrix that the checkpoint has as `loaded`. Plain matrices
  // are converted; blocks only to fewer bits an element: what is already
  // smaller stays. Where a row is no whole number of blocks, and for an output
  // head, another type takes the target's place, never one of fewer bits: as
  // in a GGUF file of the target's type (gguf_plan.h), so that both give the
  // same bits. With fp8, which no GGUF file has, embeddings, heads and rows of
  // no whole blocks are bf16. Vectors stay.
  WeightType TypeFor(const TensorSpec& tensor, bool tied_embeddings,
                     WeightType loaded) const;

 private:
  std::optional<WeightType> target_;
};

// Converts every matrix of all stages that the policy wants otherwise
// than it is, on `threads` threads, when it is read. What is missing is left to
// the loader to say.
void ApplyPolicy(const WeightsPolicy& policy, ModelConfig config, int threads,
                 CheckpointTensors* checkpoint);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_WEIGHTS_POLICY_H_
