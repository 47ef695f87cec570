// Whether wgmma computes on this device what mma.sync computes. Both are asked
// for the same products in the same order of k; how a tensor core rounds the
// sum inside one step of 16 is the hardware's own.
#ifndef CARAVAN_WORKER_OPS_CUDA_WGMMA_CHECK_H_
#define CARAVAN_WORKER_OPS_CUDA_WGMMA_CHECK_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/cuda/device.h"

namespace caravan::worker::cuda {

enum class WgmmaVerdict {
  kSame,   // every bit
  kNear,   // but for rounding
  kWrong,  // or nothing at all: a build without it
};
const char* Name(WgmmaVerdict verdict);

// Seeded products of `columns` in one segment and in 8 of uneven length, of 8,
// 32 and 130 tokens: magnitudes from 2^-8 to 2^8, both signs.
// Errors: the device's.
absl::StatusOr<WgmmaVerdict> CompareWgmma(Device& device, int64_t columns);

// From how many tokens on a step's products take wgmma: 1 where it is a class
// of its own; those that are bound by arithmetic where the device has the bits
// of mma.sync; never otherwise, which is logged. Errors: the device's;
// kUnsupportedParameter where wgmma is asked for and does not compute.
absl::StatusOr<int64_t> WgmmaTokens(Device& device, const CudaOptions& options);

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_WGMMA_CHECK_H_
