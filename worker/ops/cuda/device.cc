#include "worker/ops/cuda/device.h"

#include <cstring>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"

namespace caravan::worker::cuda {

void LaunchList::AddBytes(int index, const LaunchShape& shape, const void* args,
                          size_t bytes) {
  // Each on a border that suits any argument.
  const size_t begin = (args_.size() + 15) / 16 * 16;
  args_.resize(begin + bytes);
  std::memcpy(args_.data() + begin, args, bytes);
  launches_.push_back({index, shape, begin});
}

void LaunchList::Add(int index, const LaunchShape& shape, const void* args) {
  AddBytes(index, shape, args, AllKernels::kArgsBytes[index]);
}

void LaunchList::Add(const LibraryGemm& gemm) {
  AddBytes(kLibraryGemm, {}, &gemm, sizeof(gemm));
}

void LaunchList::Add(const PeerGather& gather) {
  AddBytes(kPeerGather, {}, &gather, sizeof(gather));
}

void LaunchList::clear() {
  launches_.clear();
  args_.clear();
}

absl::Status LaunchList::LaunchOn(Device& device) const {
  for (const Launch& launch : launches_) {
    const std::byte* const args = args_.data() + launch.args;
    if (launch.index == kLibraryGemm) {
      LibraryGemm gemm;
      std::memcpy(&gemm, args, sizeof(gemm));
      CARAVAN_RETURN_IF_ERROR(device.Multiply(gemm));
    } else if (launch.index == kPeerGather) {
      PeerGather gather;
      std::memcpy(&gather, args, sizeof(gather));
      CARAVAN_RETURN_IF_ERROR(device.Gather(gather));
    } else {
      CARAVAN_RETURN_IF_ERROR(
          device.LaunchIndex(launch.index, launch.shape, args));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<GemmLibrary*> Device::gemm_library() {
  return UnsupportedError("--profile=fast",
                          "this device has no library of products");
}

absl::Status Device::Multiply(const LibraryGemm&) {
  return gemm_library().status();
}

absl::Status Device::Gather(const PeerGather&) {
  return UnsupportedError("--ranks", "this device has no peers");
}

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
