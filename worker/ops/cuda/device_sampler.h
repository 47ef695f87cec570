// Samples and scores where the logits are: only tokens, and what was asked
// about them, come back. Same results as worker/ops/sample.h.
#ifndef CARAVAN_WORKER_OPS_CUDA_DEVICE_SAMPLER_H_
#define CARAVAN_WORKER_OPS_CUDA_DEVICE_SAMPLER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/step_inputs.h"
#include "worker/ops/ops.h"

namespace caravan::worker::cuda {

// What the rows of a call ask for, as the kernels take it. Plain data.
struct SampleBatch {
  std::vector<SampleTask> tasks;  // samples, then scores
  std::vector<LogitEdit> edits;   // of all tasks; each id of a task once
  std::vector<float> biases;
  int32_t candidates = 0;  // the most of a task
  bool any_scored = false;
  bool any_drawn = false;
  bool any_top_k = false;
  bool any_top_p = false;
};
SampleBatch MakeSampleBatch(const SampleArgs& args);

// One caller at a time.
class DeviceSampler {
 public:
  explicit DeviceSampler(Device* device)
      : device_(*device), tables_(device), scratch_(device) {}

  // Bytes for `rows` tokens at once; grows where more come.
  static size_t ScratchBytes(int32_t rows, int64_t vocabulary);
  absl::Status Reserve(int32_t rows, int64_t vocabulary);
  size_t scratch_bytes() const { return scratch_.bytes(); }

  // args.logits lie on the device; their contents are the same afterwards.
  absl::Status Run(const SampleArgs& args);

 private:
  absl::Status Place(const SampleBatch& batch, const View<float>& logits,
                     SampleTables& tables);
  absl::Status Launch(const SampleBatch& batch, const SampleTables& tables);
  absl::Status LaunchDraw(const SampleBatch& batch, const SampleTables& tables);
  absl::Status LaunchSearch(int64_t tasks, const SampleTables& tables, Cut cut);
  absl::Status Fetch(const SampleBatch& batch, const SampleTables& tables,
                     const SampleArgs& args);

  Device& device_;
  Scratch tables_;   // tasks, edits, biases: a step's lists
  Scratch scratch_;  // what kernels leave for each other, and records
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_DEVICE_SAMPLER_H_
