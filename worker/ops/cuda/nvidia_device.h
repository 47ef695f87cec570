// A Device over the CUDA runtime.
#ifndef CARAVAN_WORKER_OPS_CUDA_NVIDIA_DEVICE_H_
#define CARAVAN_WORKER_OPS_CUDA_NVIDIA_DEVICE_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/nvidia_peers.h"

namespace caravan::worker::cuda {

struct NvidiaOptions {
  int32_t ordinal = 0;
  // Of which the device is the rank of its ordinal, if it has any.
  std::shared_ptr<NvidiaPeers> peers = nullptr;
  bool early_starts = true;  // StartsEarly (geometry.h) is asked
};

// kUnsupportedParameter where there is no such device, or none that this build
// has kernels for.
absl::StatusOr<std::unique_ptr<Device>> OpenNvidiaDevice(
    const NvidiaOptions& options);

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_NVIDIA_DEVICE_H_
