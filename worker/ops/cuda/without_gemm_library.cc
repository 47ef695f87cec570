// What stands for cuBLASLt where its headers were not found.
#include "common/status/errors.h"
#include "worker/ops/cuda/nvidia_gemm_library.h"

namespace caravan::worker::cuda {

absl::StatusOr<std::unique_ptr<GemmLibrary>> OpenNvidiaGemmLibrary(
    int32_t, CUstream_st*) {
  return UnsupportedError("--profile=fast",
                          "this build had no headers of cuBLASLt; use exact");
}

}  // namespace caravan::worker::cuda
