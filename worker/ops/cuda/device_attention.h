// Attention over a paged cache: which kernel, and the partial results of
// splits that run at the same time.
#ifndef CARAVAN_WORKER_OPS_CUDA_DEVICE_ATTENTION_H_
#define CARAVAN_WORKER_OPS_CUDA_DEVICE_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/backend.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/step_inputs.h"

namespace caravan::worker::cuda {

// A step's attention in one layer, on the device.
struct AttentionOnDevice {
  int64_t tokens = 0;  // with those a step is padded with
  int32_t layer = 0;
  int32_t heads = 0;
  Cache cache;
  DeviceView q;
  DeviceView out;
  const DeviceTables* tables = nullptr;
};

// One caller at a time.
class DeviceAttention {
 public:
  // Splits of `split_keys` keys.
  DeviceAttention(Device* device, int32_t split_keys)
      : device_(*device),
        split_keys_(split_keys),
        outputs_(device),
        stats_(device) {}

  // What Reserve allocates for steps of `spec`.
  static size_t ScratchBytes(const ScratchSpec& spec);
  absl::Status Reserve(const ScratchSpec& spec);
  size_t scratch_bytes() const { return outputs_.bytes() + stats_.bytes(); }

  // On tensor cores where the cache has fragments.
  absl::Status Run(const AttentionOnDevice& args);

 private:
  absl::StatusOr<Partials> PartialsFor(const AttentionOnDevice& args);
  absl::Status RunChains(const AttentionOnDevice& args,
                         const Partials& partials);
  template <typename Elements>
  absl::Status RunMma(const AttentionOnDevice& args, const Partials& partials);
  absl::Status Combine(const AttentionOnDevice& args, const Partials& partials);

  Device& device_;
  const int32_t split_keys_;
  Scratch outputs_, stats_;
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_DEVICE_ATTENTION_H_
