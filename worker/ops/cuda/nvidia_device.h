// A Device over the CUDA runtime.
#ifndef CARAVAN_WORKER_OPS_CUDA_NVIDIA_DEVICE_H_
#define CARAVAN_WORKER_OPS_CUDA_NVIDIA_DEVICE_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/nvidia_peers.h"

namespace caravan::worker::cuda {

// Opens the device of that ordinal, which is that rank of its peers, if it has
// any. kUnsupportedParameter where there is none, or none that this build has
// kernels for.
absl::StatusOr<std::unique_ptr<Device>> OpenNvidiaDevice(
    int32_t ordinal, std::shared_ptr<NvidiaPeers> peers = nullptr);

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_NVIDIA_DEVICE_H_
