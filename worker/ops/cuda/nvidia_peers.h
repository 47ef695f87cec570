// How the devices of one machine reach each other.
#ifndef CARAVAN_WORKER_OPS_CUDA_NVIDIA_PEERS_H_
#define CARAVAN_WORKER_OPS_CUDA_NVIDIA_PEERS_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/cuda/device.h"

struct CUstream_st;

namespace caravan::worker::cuda {

// Ranks gather each on a thread of its own; Break may be called from any.
class NvidiaPeers {
 public:
  virtual ~NvidiaPeers() = default;
  // On the rank's device, in the order of its stream.
  virtual absl::Status Gather(int rank, const PeerGather& gather,
                              CUstream_st* stream) = 0;
  virtual bool in_graphs() const = 0;
  // Ends what ranks wait for with `status`, which is not OK.
  virtual void Break(const absl::Status& status) = 0;
};

// Of devices 0 to ranks - 1. kUnsupportedParameter where the machine has fewer
// or there is no NCCL and it is asked for.
absl::StatusOr<std::shared_ptr<NvidiaPeers>> LinkNvidiaDevices(int ranks,
                                                               CudaPeers by);

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_NVIDIA_PEERS_H_
