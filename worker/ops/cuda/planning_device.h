// A device that is only talked about: for plans of machines other than this.
#ifndef CARAVAN_WORKER_OPS_CUDA_PLANNING_DEVICE_H_
#define CARAVAN_WORKER_OPS_CUDA_PLANNING_DEVICE_H_

#include <memory>
#include <string>

#include "worker/ops/cuda/device.h"

namespace caravan::worker::cuda {

// Refuses (kUnsupportedParameter) whatever needs a device.
class PlanningDevice final : public Device {
 public:
  std::string architecture() const override { return "any"; }
  int multiprocessors() const override { return 1; }
  absl::StatusOr<size_t> FreeBytes() override;
  absl::StatusOr<void*> Allocate(size_t bytes) override;
  void Free(void*) override {}
  bool Owns(const void*) const override { return false; }
  absl::Status Upload(void* target, const void* source, size_t bytes) override;
  absl::Status Download(void* target, const void* source,
                        size_t bytes) override;
  absl::Status LaunchIndex(int index, const LaunchShape& shape,
                           const void* args) override;
  absl::StatusOr<std::unique_ptr<DeviceGraph>> Instantiate(
      const LaunchList& launches) override;
  absl::Status Replay(const DeviceGraph& graph) override;
  absl::Status Synchronize() override;
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_PLANNING_DEVICE_H_
