#include "worker/ops/cuda/upload_ring.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "common/status/status_macros.h"

namespace caravan::worker::cuda {
namespace {

#ifdef MADV_POPULATE_READ
constexpr int kReadNow = MADV_POPULATE_READ;
#else
constexpr int kReadNow = MADV_WILLNEED;
#endif

// Has the pages of a mapped file read at once, not one by one as they are
// touched. It may fail, and does no harm where it is in vain.
void ReadPages(const std::byte* source, size_t bytes) {
  constexpr uintptr_t kPage = 4096;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(source) / kPage * kPage;
  const uintptr_t end = reinterpret_cast<uintptr_t>(source) + bytes;
  madvise(reinterpret_cast<void*>(begin), end - begin, kReadNow);
}

}  // namespace

// Pieces are numbered; readers take them in order, and piece p + count waits
// until piece p, whose buffer it takes, was sent and read.
class UploadRing::Job {
 public:
  Job(const UploadRing& ring, void* target, const void* source, size_t bytes)
      : ring_(ring),
        target_(static_cast<std::byte*>(target)),
        source_(static_cast<const std::byte*>(source)),
        bytes_(bytes),
        pieces_((bytes + ring.shape_.bytes - 1) / ring.shape_.bytes),
        filled_(pieces_, false) {}

  size_t pieces() const { return pieces_; }

  // Of a reader: fills pieces until there are none left.
  void Read() {
    while (true) {
      const size_t piece = Take();
      if (piece == pieces_) return;
      const absl::Status status = Fill(piece);
      const absl::MutexLock lock(&mutex_);
      if (status_.ok()) status_ = status;
      filled_[piece] = true;
    }
  }

  // Sends pieces as they are filled, in order.
  absl::Status Send() {
    for (size_t piece = 0; piece < pieces_; ++piece) {
      CARAVAN_RETURN_IF_ERROR(WaitUntilFilled(piece));
      const absl::Status status = ring_.buffers_.Send(
          Buffer(piece), target_ + Offset(piece), Bytes(piece));
      const absl::MutexLock lock(&mutex_);
      if (status_.ok()) status_ = status;
      sent_ = piece + 1;
      if (!status_.ok()) return status_;
    }
    return absl::OkStatus();
  }

  // All of it on the calling thread.
  absl::Status Alone() {
    for (size_t piece = 0; piece < pieces_; ++piece) {
      CARAVAN_RETURN_IF_ERROR(Fill(piece));
      CARAVAN_RETURN_IF_ERROR(ring_.buffers_.Send(
          Buffer(piece), target_ + Offset(piece), Bytes(piece)));
    }
    return absl::OkStatus();
  }

 private:
  size_t Buffer(size_t piece) const {
    return (ring_.next_ + piece) % ring_.shape_.count;
  }
  size_t Offset(size_t piece) const { return piece * ring_.shape_.bytes; }
  size_t Bytes(size_t piece) const {
    return std::min(ring_.shape_.bytes, bytes_ - Offset(piece));
  }

  // The next piece whose buffer is free of earlier ones; `pieces_`: none.
  size_t Take() {
    const absl::MutexLock lock(&mutex_);
    if (next_ == pieces_) return pieces_;
    const size_t piece = next_++;
    const auto free = [this, piece]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return !status_.ok() || piece < sent_ + ring_.shape_.count;
    };
    mutex_.Await(absl::Condition(&free));
    return status_.ok() ? piece : pieces_;
  }

  absl::Status Fill(size_t piece) {
    CARAVAN_RETURN_IF_ERROR(ring_.buffers_.WaitUntilRead(Buffer(piece)));
    const std::byte* const source = source_ + Offset(piece);
    ReadPages(source, Bytes(piece));
    std::memcpy(ring_.buffers_.data(Buffer(piece)), source, Bytes(piece));
    return absl::OkStatus();
  }

  absl::Status WaitUntilFilled(size_t piece) {
    const absl::MutexLock lock(&mutex_);
    const auto filled = [this, piece]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return !status_.ok() || filled_[piece];
    };
    mutex_.Await(absl::Condition(&filled));
    return status_;
  }

  const UploadRing& ring_;
  std::byte* const target_;
  const std::byte* const source_;
  const size_t bytes_;
  const size_t pieces_;
  absl::Mutex mutex_;
  std::vector<bool> filled_ ABSL_GUARDED_BY(mutex_);
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;  // piece to be read
  size_t sent_ ABSL_GUARDED_BY(mutex_) = 0;  // pieces
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

absl::Status UploadRing::Upload(void* target, const void* source,
                                size_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  Job job(*this, target, source, bytes);
  const size_t readers =
      std::min(job.pieces(), static_cast<size_t>(shape_.readers));
  absl::Status status;
  if (readers <= 1) {
    status = job.Alone();
  } else {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < readers; ++i) {
      threads.emplace_back([&job] { job.Read(); });
    }
    status = job.Send();
  }
  next_ = (next_ + job.pieces()) % shape_.count;
  return status;
}

}  // namespace caravan::worker::cuda
