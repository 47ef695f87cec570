// What stands for the factory where the toolkit was not found.
#include "common/status/errors.h"
#include "worker/ops/cuda/cuda_backend.h"

namespace caravan::worker {

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaOptions&) {
  return UnsupportedError("--device=cuda",
                          "this build has no CUDA backend; use cpu");
}

absl::StatusOr<CudaRanks> MakeCudaRanks(const CudaOptions& options, CudaPeers) {
  return MakeCudaBackend(options).status();
}

absl::StatusOr<cuda::DeviceCeilings> MeasureCudaCeilings(int32_t) {
  return UnsupportedError("--device=cuda",
                          "this build has no CUDA backend; use cpu");
}

}  // namespace caravan::worker
