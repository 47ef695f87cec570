// A device that runs kernels, as the backend sees it: memory, copies and
// launches in one order. Implemented over the CUDA runtime (nvidia_device), and
// for tests on the host.
#ifndef CARAVAN_WORKER_OPS_CUDA_DEVICE_H_
#define CARAVAN_WORKER_OPS_CUDA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/cuda/kernels/kernel_list.h"

namespace caravan::worker::cuda {

// Blocks of a grid, threads of a block, bytes of the block's shared memory.
struct LaunchShape {
  int64_t x = 1;
  int64_t y = 1;
  int64_t z = 1;
  int32_t threads = 0;
  int64_t shared_bytes = 0;

  friend bool operator==(const LaunchShape&, const LaunchShape&) = default;
};

// Uploads, launches and downloads happen in the order of the calls. An error is
// sticky: every later call gives it again. One caller at a time.
class Device {
 public:
  virtual ~Device() = default;

  // Such as "sm90": what decides the bits of the tensor cores.
  virtual std::string architecture() const = 0;
  virtual int multiprocessors() const = 0;
  // Bytes that Allocate can still give.
  virtual absl::StatusOr<size_t> FreeBytes() = 0;

  // Zeroed memory, aligned to kAlignment. kMemoryPlan when refused.
  static constexpr size_t kAlignment = 256;
  virtual absl::StatusOr<void*> Allocate(size_t bytes) = 0;
  virtual void Free(void* memory) = 0;
  // Whether `address` lies in memory from Allocate.
  virtual bool Owns(const void* address) const = 0;

  // `source` may be reused on return.
  virtual absl::Status Upload(void* target, const void* source,
                              size_t bytes) = 0;
  // Waits for everything before it.
  virtual absl::Status Download(void* target, const void* source,
                                size_t bytes) = 0;
  // Starts kernel `index` of AllKernels; `args` are its Args.
  virtual absl::Status LaunchIndex(int index, const LaunchShape& shape,
                                   const void* args) = 0;
  virtual absl::Status Synchronize() = 0;

  // Starts a kernel. A grid without blocks is nothing.
  template <typename Kernel>
  absl::Status Launch(const LaunchShape& shape,
                      const typename Kernel::Args& args) {
    if (shape.x == 0 || shape.y == 0 || shape.z == 0) return absl::OkStatus();
    return LaunchIndex(AllKernels::IndexOf<Kernel>(), shape, &args);
  }
};

// Owning memory of a device, which must outlive it. Move-only.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  static absl::StatusOr<DeviceBuffer> Allocate(Device* device, size_t bytes);
  // What Allocate(bytes) takes.
  static size_t AllocatedBytes(size_t bytes);

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }  // as allocated
  template <typename T>
  T* As() const {
    return static_cast<T*>(data_);
  }

 private:
  Device* device_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_DEVICE_H_
