// A model's steps without an engine and without sampling: what a step costs
// the backend alone, at a context that stays as it is.
#ifndef CARAVAN_WORKER_BENCH_MODEL_LOOP_H_
#define CARAVAN_WORKER_BENCH_MODEL_LOOP_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "worker/kv/block_pool.h"
#include "worker/model/llama.h"
#include "worker/model/model_loader.h"

namespace caravan::worker::bench {

struct ModelLoopOptions {
  int32_t max_step_tokens = 512;
  int32_t max_streams = 1;  // that decode at once
  int64_t max_keys = 0;     // of all streams together, as in their blocks
};

// Not thread-safe; alone with its backend.
class ModelLoop {
 public:
  // `model` and `backend` must outlive the loop. Errors are the backend's.
  static absl::StatusOr<std::unique_ptr<ModelLoop>> Create(
      const LoadedModel* model, Backend* backend, const Clock* clock,
      const ModelLoopOptions& options);

  // Seconds of one step in which each of `streams` decodes a token at position
  // `context`: the mean of `steps` steps, one after the other.
  absl::StatusOr<double> Decode(int streams, int32_t context, int steps);
  // Seconds of a prompt of `tokens` in chunks of max_step_tokens, to the logits
  // of its last token.
  absl::StatusOr<double> Prefill(int32_t tokens);

 private:
  ModelLoop(const LoadedModel* model, Backend* backend, const Clock* clock,
            const ModelLoopOptions& options);

  // `count` tokens of each of `streams` from `position` on.
  absl::Status Step(int streams, int32_t position, int32_t count);
  void PlaceTokens(int streams, int32_t position, int32_t count);
  void FillRope(int streams, int32_t position, int32_t count);
  // Returns when the device has done all of the above.
  absl::Status Wait();
  int32_t blocks_of(int32_t keys) const {
    return (keys + kBlockSlots - 1) / kBlockSlots;
  }

  const LoadedModel& model_;
  Backend& backend_;
  const Clock& clock_;
  const ModelLoopOptions options_;
  Llama llama_;
  std::unique_ptr<KvStorage> kv_;
  Activations activations_;
  std::vector<std::vector<BlockId>> blocks_;  // of each stream
  std::vector<int32_t> ids_, last_;
  std::vector<int64_t> slots_;
  std::vector<AttentionRow> rows_;
};

}  // namespace caravan::worker::bench

#endif  // CARAVAN_WORKER_BENCH_MODEL_LOOP_H_
