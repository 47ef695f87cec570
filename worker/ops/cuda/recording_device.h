// A device that puts off the launches of a step that decodes, to replay them as
// one graph where the same were seen before: hundreds of launches become one.
//
// A graph is replayed only when every launch, its grid and all its arguments
// are those it was made of, so that a replay cannot differ from direct
// launches. What differs between steps lies in device memory: the step's
// tables, uploaded before.
#ifndef CARAVAN_WORKER_OPS_CUDA_RECORDING_DEVICE_H_
#define CARAVAN_WORKER_OPS_CUDA_RECORDING_DEVICE_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/graph_buckets.h"

namespace caravan::worker::cuda {

// Anything but a launch between Start and Finish that could meet the launches
// put off (copies, Free, Synchronize) first launches them one by one, and
// recording ends. One caller at a time.
class RecordingDevice final : public Device {
 public:
  explicit RecordingDevice(std::unique_ptr<Device> device)
      : device_(std::move(device)) {}

  // Launches are put off until Finish; those of a step that was not finished
  // run now.
  void Start(const GraphKey& key);
  // Replays or launches what was put off. An error is given by every later
  // call too.
  absl::Status Finish();
  bool recording() const { return key_.has_value(); }

  std::string architecture() const override { return device_->architecture(); }
  int multiprocessors() const override { return device_->multiprocessors(); }
  bool wgmma() const override { return device_->wgmma(); }
  bool fp8() const override { return device_->fp8(); }
  absl::StatusOr<size_t> FreeBytes() override { return device_->FreeBytes(); }
  absl::StatusOr<void*> Allocate(size_t bytes) override;
  void Free(void* memory) override;
  bool Owns(const void* address) const override {
    return device_->Owns(address);
  }
  absl::Status Upload(void* target, const void* source, size_t bytes) override;
  absl::Status Download(void* target, const void* source,
                        size_t bytes) override;
  absl::Status LaunchIndex(int index, const LaunchShape& shape,
                           const void* args) override;
  absl::StatusOr<GemmLibrary*> gemm_library() override {
    return device_->gemm_library();
  }
  absl::Status Multiply(const LibraryGemm& gemm) override;
  // Put off too where graphs may hold it; else what was put off is launched,
  // and recording ends.
  absl::Status Gather(const PeerGather& gather) override;
  bool gathers_in_graphs() const override {
    return device_->gathers_in_graphs();
  }
  absl::StatusOr<std::unique_ptr<DeviceGraph>> Instantiate(
      const LaunchList& launches) override;
  absl::Status Replay(const DeviceGraph& graph) override;
  absl::Status Synchronize() override;

 private:
  struct Recorded {
    LaunchList launches;
    std::unique_ptr<DeviceGraph> graph;
  };

  // Launches what was put off, one by one.
  absl::Status Flush();
  absl::Status ReplayRecorded(const GraphKey& key);
  absl::Status Sticky(absl::Status status);

  const std::unique_ptr<Device> device_;
  GraphUses uses_{kMaxGraphs};
  std::map<GraphKey, Recorded> graphs_;
  std::optional<GraphKey> key_;  // while recording
  LaunchList launches_;
  absl::Status failure_;
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_RECORDING_DEVICE_H_
