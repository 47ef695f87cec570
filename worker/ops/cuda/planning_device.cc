#include "worker/ops/cuda/planning_device.h"

#include "common/status/errors.h"
#include "worker/ops/cuda/cuda_backend.h"

namespace caravan::worker {
namespace cuda {
namespace {

absl::Status Refusal() {
  return UnsupportedError("--device=cuda",
                          "this is a plan; no device was opened");
}

}  // namespace

absl::StatusOr<size_t> PlanningDevice::FreeBytes() { return Refusal(); }

absl::StatusOr<void*> PlanningDevice::Allocate(size_t) { return Refusal(); }

absl::Status PlanningDevice::Upload(void*, const void*, size_t) {
  return Refusal();
}

absl::Status PlanningDevice::Download(void*, const void*, size_t) {
  return Refusal();
}

absl::Status PlanningDevice::LaunchIndex(int, const LaunchShape&, const void*) {
  return Refusal();
}

absl::StatusOr<std::unique_ptr<DeviceGraph>> PlanningDevice::Instantiate(
    const LaunchList&) {
  return Refusal();
}

absl::Status PlanningDevice::Replay(const DeviceGraph&) { return Refusal(); }

absl::Status PlanningDevice::Synchronize() { return Refusal(); }

}  // namespace cuda

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaPlanner(
    const CudaOptions& options) {
  return cuda::MakePlannerOn(std::make_unique<cuda::PlanningDevice>(), options);
}

}  // namespace caravan::worker
