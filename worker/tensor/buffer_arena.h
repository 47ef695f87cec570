// Many tensors in one mapping: rounding to 2 MiB pages is then paid once and
// not for each.
#ifndef CARAVAN_WORKER_TENSOR_BUFFER_ARENA_H_
#define CARAVAN_WORKER_TENSOR_BUFFER_ARENA_H_

#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/tensor/buffer.h"

namespace caravan::worker {

// Memory of one tensor, zero at first; keeps what it was cut from alive.
// Thread-safe as memory is.
class BufferSlice {
 public:
  BufferSlice() = default;
  BufferSlice(std::shared_ptr<Buffer> owner, size_t offset, size_t size)
      : owner_(std::move(owner)), data_(owner_->data() + offset), size_(size) {}

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::shared_ptr<Buffer> owner_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Not thread-safe.
class BufferArena {
 public:
  // Maps `bytes` for the slices to come; what is left of an earlier mapping is
  // given up. kMemoryPlan when the system refuses.
  absl::Status Reserve(size_t bytes);

  // A slice of what is reserved, or of a mapping of its own where that does not
  // suffice. kMemoryPlan when the system refuses.
  absl::StatusOr<BufferSlice> Take(size_t bytes);

  // What a slice takes of a reservation: rounded up to Buffer::kAlignment.
  static size_t SliceBytes(size_t bytes);

 private:
  std::shared_ptr<Buffer> mapping_;
  size_t used_ = 0;  // of mapping_
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_TENSOR_BUFFER_ARENA_H_
