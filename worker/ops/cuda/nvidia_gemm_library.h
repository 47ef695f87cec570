// cuBLASLt as a GemmLibrary. It is opened at run time: binaries need neither
// it nor its half a gigabyte unless products by it are asked for.
#ifndef CARAVAN_WORKER_OPS_CUDA_NVIDIA_GEMM_LIBRARY_H_
#define CARAVAN_WORKER_OPS_CUDA_NVIDIA_GEMM_LIBRARY_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/ops/cuda/gemm_library.h"

struct CUstream_st;

namespace caravan::worker::cuda {

// For the device of that ordinal, which is the calling thread's, in the order
// of `stream`, which must outlive the library. kUnsupportedParameter where
// cuBLASLt of the version that this was built with is not found (it is looked
// for as any shared library is), or this build had no headers of it.
absl::StatusOr<std::unique_ptr<GemmLibrary>> OpenNvidiaGemmLibrary(
    int32_t ordinal, CUstream_st* stream);

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_NVIDIA_GEMM_LIBRARY_H_
