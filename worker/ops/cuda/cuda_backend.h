// The phases of ops.h on a CUDA device.
//
// Classes. With fp32 activations every phase is computed in the reference's
// order (splits of 256 keys): the reference's and the cpu backend's bits, for
// parity. With bf16 activations, products with matrices of bf16 run on tensor
// cores, attention too where the cache is bf16, and splits have 512 keys.
// Weights of other types meet fp32 activations in both.
//
// The phases' views may lie in the backend's memory (AllocateArena), where
// nothing is copied, or in the host's.
#ifndef CARAVAN_WORKER_OPS_CUDA_CUDA_BACKEND_H_
#define CARAVAN_WORKER_OPS_CUDA_CUDA_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/ops/backend.h"
#include "worker/ops/cuda/device.h"

namespace caravan::worker {

struct CudaOptions {
  NumericsOptions numerics = {ActivationType::kBf16, DType::kBf16};
  int32_t device = 0;  // ordinal
  // Piece in which weights are uploaded.
  size_t staging_bytes = size_t{32} << 20;
  // Steps that only decode are padded to buckets (graph_buckets.h) and replayed
  // as graphs: the same bits. Their views must have room for the tokens of
  // ReserveScratch.
  bool graphs = true;
};

// On the machine's device. Errors: kUnsupportedParameter where this build has
// no CUDA, the machine no such device, or activations are int8.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(
    const CudaOptions& options);

// The same without a device: it says what will be allocated, and no more.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaPlanner(
    const CudaOptions& options);

namespace cuda {

// On a given device.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackendOn(
    std::unique_ptr<Device> device, const CudaOptions& options);

// Partial results of attention at once (geometry.h).
inline constexpr int32_t kPartialSlots = 1024;

}  // namespace cuda
}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_CUDA_CUDA_BACKEND_H_
