// The forward page of a Llama, written once over the phases of a backend.
#ifndef CARAVAN_WORKER_MODEL_LLAMA_H_
#define CARAVAN_WORKER_MODEL_LLAMA_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/model/config.h"
#include "worker/model/weights.h"
#include "worker/ops/check.h"
#include "worker/ops/ops.h"
#include "worker/tensor/buffer.h"
#include "worker/tensor/view.h"

namespace caravan::worker {

// What a step holds between phases; planned once for the largest step.
class Activations {
 public:
  // For up to `max_tokens` tokens and `max_logits_rows` rows of logits at once,
  // in the backend's memory. What the host writes and reads, cos and sin and,
  // where other stages follow or come before, x, lies in the host's.
  static absl::StatusOr<Activations> Allocate(const ModelConfig& config,
                                              int32_t max_tokens,
                                              int32_t max_logits_rows,
                                              Backend* backend);
  // What Allocate takes from backend and system.
  static size_t PlannedBytes(const ModelConfig& config, int32_t max_tokens,
                             int32_t max_logits_rows, const Backend& backend);
  // As allocated.
  size_t bytes() const;

  int32_t max_tokens() const { return max_tokens_; }
  int32_t max_logits_rows() const { return max_logits_rows_; }

  // Views of the first `rows` rows. Those of `hidden` lie where q and attention
  // do, and those of logits too: never needed at once.
  View<float> x(int64_t rows) { return x_.Rows(0, rows); }
  View<float> q(int64_t rows) { return q_.Rows(0, rows); }
  View<float> attention(int64_t rows) { return attention_.Rows(0, rows); }
  View<float> hidden(int64_t rows) { return hidden_.Rows(0, rows); }
  View<float> cos(int64_t rows) { return cos_.Rows(0, rows); }
  View<float> sin(int64_t rows) { return sin_.Rows(0, rows); }
  View<float> logits(int64_t rows) { return logits_.Rows(0, rows); }

 private:
  std::unique_ptr<Arena> arena_;
  Buffer host_;  // empty where the arena is host memory
  int32_t max_tokens_ = 0;
  int32_t max_logits_rows_ = 0;
  View<float> x_, q_, attention_, hidden_, cos_, sin_, logits_;
};

// The tokens of a step. `cos` and `sin` of the activations are filled for
// their positions.
struct LlamaStep {
  std::span<const int32_t> ids;
  std::span<const int64_t> slots;  // where keys and values go, or -1
  std::span<const AttentionRow> rows;
};

// Not thread-safe, as its backend is not. Holds no state of a step; config,
// weights and backend must outlive it.
class Llama {
 public:
  Llama(const ModelConfig* config, const Weights* weights, Backend* backend)
      : config_(*config),
        weights_(*weights),
        backend_(backend),
        ops_(backend) {}

  // Leaves the residual stream behind the stage's last layer in activations.x,
  // where a stage that is not the first has it from the one before. Ids are
  // looked up by the first stage only.
  absl::Status Forward(const LlamaStep& step, KvStorage* kv,
                       Activations& activations);

  // Last stage only. Logits of the step's tokens with these indices, in order,
  // into the first rows of activations.logits. `token_count` is that of the
  // step.
  absl::Status Logits(std::span<const int32_t> tokens, int64_t token_count,
                      Activations& activations);

 private:
  absl::Status Layers(const LlamaStep& step, KvStorage* kv,
                      Activations& activations);

  const ModelConfig& config_;
  const Weights& weights_;
  Backend* const backend_;
  CheckedOps ops_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_LLAMA_H_
