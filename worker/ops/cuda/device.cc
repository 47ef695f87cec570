#include "worker/ops/cuda/device.h"

#include <utility>

#include "common/status/status_macros.h"

namespace caravan::worker::cuda {

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept {
  *this = std::move(other);
}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) device_->Free(data_);
}

size_t DeviceBuffer::AllocatedBytes(size_t bytes) {
  return (bytes + Device::kAlignment - 1) / Device::kAlignment *
         Device::kAlignment;
}

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(Device* device,
                                                    size_t bytes) {
  DeviceBuffer buffer;
  if (bytes == 0) return buffer;
  CARAVAN_ASSIGN_OR_RETURN(buffer.data_,
                           device->Allocate(AllocatedBytes(bytes)));
  buffer.device_ = device;
  buffer.bytes_ = AllocatedBytes(bytes);
  return buffer;
}

}  // namespace caravan::worker::cuda
