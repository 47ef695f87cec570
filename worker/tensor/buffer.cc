#include "worker/tensor/buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

constexpr size_t RoundUp(size_t value, size_t unit) {
  return (value + unit - 1) / unit * unit;
}

absl::Status OutOfMemory(size_t bytes) {
  const std::string text = StrCat(bytes);
  return MakeError(Reason::kMemoryPlan,
                   StrCat("the system refused ", text, " bytes of memory"),
                   {{"value", text}});
}

// Maps `bytes` (whole huge pages) at a huge-page border, or gives null. Maps
// one page more and cuts both ends off.
std::byte* MapHuge(size_t bytes) {
  const size_t wide = bytes + Buffer::kHugePageBytes;
  void* const mapped = mmap(nullptr, wide, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(mapped);
  const uintptr_t aligned = RoundUp(begin, Buffer::kHugePageBytes);
  const size_t head = aligned - begin;
  if (head > 0) munmap(mapped, head);
  munmap(reinterpret_cast<void*>(aligned + bytes), wide - head - bytes);
  void* const data = reinterpret_cast<void*>(aligned);
  madvise(data, bytes, MADV_HUGEPAGE);  // a wish: small pages are right too
  return static_cast<std::byte*>(data);
}

}  // namespace

Buffer::Buffer(Buffer&& other) noexcept { *this = std::move(other); }

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this == &other) return *this;
  Free();
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  mapped_ = std::exchange(other.mapped_, 0);
  return *this;
}

Buffer::~Buffer() { Free(); }

void Buffer::Free() {
  if (mapped_ > 0) {
    munmap(data_, mapped_);
  } else {
    std::free(data_);
  }
}

size_t Buffer::AllocatedBytes(size_t bytes) {
  return RoundUp(bytes, bytes >= kHugePageBytes ? kHugePageBytes : kAlignment);
}

absl::StatusOr<Buffer> Buffer::Allocate(size_t bytes) {
  Buffer buffer;
  if (bytes == 0) return buffer;
  if (bytes > SIZE_MAX / 2) return OutOfMemory(bytes);
  const size_t allocated = AllocatedBytes(bytes);
  if (bytes >= kHugePageBytes) {
    buffer.data_ = MapHuge(allocated);
    buffer.mapped_ = allocated;
  } else {
    buffer.data_ =
        static_cast<std::byte*>(std::aligned_alloc(kAlignment, allocated));
    if (buffer.data_ != nullptr) std::memset(buffer.data_, 0, allocated);
  }
  if (buffer.data_ == nullptr) {
    buffer.mapped_ = 0;
    return OutOfMemory(bytes);
  }
  buffer.size_ = bytes;
  return buffer;
}

}  // namespace caravan::worker
