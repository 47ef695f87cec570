// Whether a device's library gives the bits of our kernels: then the exact
// profile may use it.
#ifndef CARAVAN_WORKER_OPS_CUDA_LIBRARY_CHECK_H_
#define CARAVAN_WORKER_OPS_CUDA_LIBRARY_CHECK_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/device_products.h"
#include "worker/ops/cuda/storage.h"

namespace caravan::worker::cuda {

// The most tokens, up to `most`, for which products with `library`, packed for
// the library, have the bits of those with `ours`, the same matrix packed for
// our kernels: whole products of seeded inputs are compared at both ends of
// every bucket of tokens. 0: not even for one. A sample, not a proof: what was
// not compared is the same algorithm on other numbers. Needs memory for two
// products; kMemoryPlan where there is none.
absl::StatusOr<int32_t> TokensOfEqualBits(Device* device,
                                          DeviceProducts& products,
                                          const CudaMatrix& ours,
                                          const CudaMatrix& library,
                                          int32_t most);

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_LIBRARY_CHECK_H_
