// Owning memory of tensors, aligned for vector loads; large buffers lie in
// 2 MiB pages where the kernel has them.
#ifndef CARAVAN_WORKER_TENSOR_BUFFER_H_
#define CARAVAN_WORKER_TENSOR_BUFFER_H_

#include <cstddef>

#include "absl/status/statusor.h"

namespace caravan::worker {

// Move-only; empty after a move. Contents are zero after allocation, and pages
// are backed only when first touched. Thread-safe as memory is.
class Buffer {
 public:
  // Alignment of every buffer; buffers of at least kHugePageBytes have that
  // alignment and ask for huge pages.
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kHugePageBytes = size_t{2} << 20;

  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  // Zero bytes give an empty buffer. kMemoryPlan when the system refuses.
  static absl::StatusOr<Buffer> Allocate(size_t bytes);

  // What Allocate(bytes) takes from the system: `bytes` rounded up to the
  // alignment, or to whole huge pages.
  static size_t AllocatedBytes(size_t bytes);

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

  template <typename T>
  T* As() {
    return reinterpret_cast<T*>(data_);
  }
  template <typename T>
  const T* As() const {
    return reinterpret_cast<const T*>(data_);
  }

 private:
  void Free();

  std::byte* data_ = nullptr;
  size_t size_ = 0;    // as asked for
  size_t mapped_ = 0;  // of the mapping; 0: from the heap
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_TENSOR_BUFFER_H_
