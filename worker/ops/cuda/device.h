// A device that runs kernels, as the backend sees it: memory, copies and
// launches in one order. Implemented over the CUDA runtime (nvidia_device), and
// for tests on the host.
#ifndef CARAVAN_WORKER_OPS_CUDA_DEVICE_H_
#define CARAVAN_WORKER_OPS_CUDA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/cuda/gemm_library.h"
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

// Makes equal arguments equal bytes. Where the compiler cannot, launches look
// different that are not, and graphs are made anew.
template <typename T>
void ClearPadding([[maybe_unused]] T& value) {
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
  __builtin_clear_padding(&value);
#endif
}

// What every rank gives to all: `bytes` at `part`, into `all`, where those of
// the first rank come first. Both in the device's memory.
struct PeerGather {
  const void* part = nullptr;
  void* all = nullptr;
  int64_t bytes = 0;
};

class Device;

// Launches that were put off: kernels, grids and copies of their arguments,
// products of the library, and what peers gather.
class LaunchList {
 public:
  void Add(int index, const LaunchShape& shape, const void* args);
  void Add(const LibraryGemm& gemm);
  void Add(const PeerGather& gather);
  void clear();
  size_t size() const { return launches_.size(); }
  absl::Status LaunchOn(Device& device) const;

  friend bool operator==(const LaunchList&, const LaunchList&) = default;

 private:
  // In place of a kernel's index.
  static constexpr int kLibraryGemm = -1;
  static constexpr int kPeerGather = -2;
  struct Launch {
    int index;
    LaunchShape shape;
    size_t args;  // where they begin

    friend bool operator==(const Launch&, const Launch&) = default;
  };
  void AddBytes(int index, const LaunchShape& shape, const void* args,
                size_t bytes);

  std::vector<Launch> launches_;
  std::vector<std::byte> args_;
};

// What a device made of a list, to be launched at once. It must not outlive
// the device.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
};

// Uploads, launches and downloads happen in the order of the calls. An error is
// sticky: every later call gives it again. One caller at a time.
class Device {
 public:
  virtual ~Device() = default;

  // Such as "sm90": what decides the bits of the tensor cores.
  virtual std::string architecture() const = 0;
  virtual int multiprocessors() const = 0;
  // Whether kernels with wgmma may be tried (sm_90).
  virtual bool wgmma() const { return false; }
  // Whether its tensor cores take e4m3 (sm_89 and later).
  virtual bool fp8() const { return false; }
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
  // Products by the device's own library. kUnsupportedParameter, saying what
  // is missing, where there is none (by default).
  virtual absl::StatusOr<GemmLibrary*> gemm_library();
  // Starts a product of gemm_library().
  virtual absl::Status Multiply(const LibraryGemm& gemm);
  // Gathers from the device's peers: every one of them calls it, with as many
  // bytes. kUnsupportedParameter where there are none (by default).
  virtual absl::Status Gather(const PeerGather& gather);
  // Whether a graph may hold it.
  virtual bool gathers_in_graphs() const { return false; }
  // The list's launches as one; its arguments are copied.
  virtual absl::StatusOr<std::unique_ptr<DeviceGraph>> Instantiate(
      const LaunchList& launches) = 0;
  virtual absl::Status Replay(const DeviceGraph& graph) = 0;
  virtual absl::Status Synchronize() = 0;

  // Starts a kernel. A grid without blocks is nothing.
  template <typename Kernel>
  absl::Status Launch(const LaunchShape& shape,
                      const typename Kernel::Args& args) {
    if (shape.x == 0 || shape.y == 0 || shape.z == 0) return absl::OkStatus();
    typename Kernel::Args copy = args;
    ClearPadding(copy);
    return LaunchIndex(AllKernels::IndexOf<Kernel>(), shape, &copy);
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
