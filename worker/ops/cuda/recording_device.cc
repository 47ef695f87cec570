#include "worker/ops/cuda/recording_device.h"

#include "common/status/status_macros.h"

namespace caravan::worker::cuda {

void RecordingDevice::Start(const GraphKey& key) {
  Flush().IgnoreError();  // sticky
  key_ = key;
  launches_.clear();
}

absl::Status RecordingDevice::Finish() {
  CARAVAN_RETURN_IF_ERROR(failure_);
  if (!key_) return absl::OkStatus();
  const GraphKey key = *std::exchange(key_, std::nullopt);
  if (launches_.size() == 0) return absl::OkStatus();
  return Sticky(ReplayRecorded(key));
}

absl::Status RecordingDevice::ReplayRecorded(const GraphKey& key) {
  if (const auto dropped = uses_.Touch(key)) graphs_.erase(*dropped);
  Recorded& recorded = graphs_[key];
  if (recorded.graph == nullptr || recorded.launches != launches_) {
    recorded.graph = nullptr;  // its memory may be needed for the next
    CARAVAN_ASSIGN_OR_RETURN(recorded.graph, device_->Instantiate(launches_));
    std::swap(recorded.launches, launches_);
  }
  return device_->Replay(*recorded.graph);
}

absl::Status RecordingDevice::Flush() {
  CARAVAN_RETURN_IF_ERROR(failure_);
  if (!key_ || launches_.size() == 0) return absl::OkStatus();
  key_.reset();
  return Sticky(launches_.LaunchOn(*device_));
}

absl::Status RecordingDevice::Sticky(absl::Status status) {
  if (failure_.ok()) failure_ = std::move(status);
  return failure_;
}

absl::StatusOr<void*> RecordingDevice::Allocate(size_t bytes) {
  CARAVAN_RETURN_IF_ERROR(failure_);
  return device_->Allocate(bytes);
}

void RecordingDevice::Free(void* memory) {
  Flush().IgnoreError();  // sticky
  device_->Free(memory);
}

absl::Status RecordingDevice::Upload(void* target, const void* source,
                                     size_t bytes) {
  CARAVAN_RETURN_IF_ERROR(Flush());
  return device_->Upload(target, source, bytes);
}

absl::Status RecordingDevice::Download(void* target, const void* source,
                                       size_t bytes) {
  CARAVAN_RETURN_IF_ERROR(Flush());
  return device_->Download(target, source, bytes);
}

absl::Status RecordingDevice::LaunchIndex(int index, const LaunchShape& shape,
                                          const void* args) {
  CARAVAN_RETURN_IF_ERROR(failure_);
  if (!key_) return device_->LaunchIndex(index, shape, args);
  launches_.Add(index, shape, args);
  return absl::OkStatus();
}

absl::Status RecordingDevice::Multiply(const LibraryGemm& gemm) {
  CARAVAN_RETURN_IF_ERROR(failure_);
  if (!key_) return device_->Multiply(gemm);
  launches_.Add(gemm);
  return absl::OkStatus();
}

absl::Status RecordingDevice::Gather(const PeerGather& gather) {
  CARAVAN_RETURN_IF_ERROR(failure_);
  if (key_ && device_->gathers_in_graphs()) {
    launches_.Add(gather);
    return absl::OkStatus();
  }
  CARAVAN_RETURN_IF_ERROR(Flush());
  return device_->Gather(gather);
}

absl::StatusOr<std::unique_ptr<DeviceGraph>> RecordingDevice::Instantiate(
    const LaunchList& launches) {
  return device_->Instantiate(launches);
}

absl::Status RecordingDevice::Replay(const DeviceGraph& graph) {
  CARAVAN_RETURN_IF_ERROR(Flush());
  return device_->Replay(graph);
}

absl::Status RecordingDevice::Synchronize() {
  CARAVAN_RETURN_IF_ERROR(Flush());
  return device_->Synchronize();
}

}  // namespace caravan::worker::cuda
