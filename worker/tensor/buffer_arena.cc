#include "worker/tensor/buffer_arena.h"

#include "common/status/status_macros.h"

namespace caravan::worker {

size_t BufferArena::SliceBytes(size_t bytes) {
  return (bytes + Buffer::kAlignment - 1) / Buffer::kAlignment *
         Buffer::kAlignment;
}

absl::Status BufferArena::Reserve(size_t bytes) {
  mapping_.reset();
  used_ = 0;
  if (bytes == 0) return absl::OkStatus();
  CARAVAN_ASSIGN_OR_RETURN(Buffer mapping, Buffer::Allocate(bytes));
  mapping_ = std::make_shared<Buffer>(std::move(mapping));
  return absl::OkStatus();
}

absl::StatusOr<BufferSlice> BufferArena::Take(size_t bytes) {
  const size_t taken = SliceBytes(bytes);
  if (mapping_ != nullptr && taken <= mapping_->size() - used_) {
    const size_t offset = used_;
    used_ += taken;
    return BufferSlice(mapping_, offset, bytes);
  }
  CARAVAN_ASSIGN_OR_RETURN(Buffer own, Buffer::Allocate(bytes));
  return BufferSlice(std::make_shared<Buffer>(std::move(own)), 0, bytes);
}

}  // namespace caravan::worker
