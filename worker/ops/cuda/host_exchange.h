// Gathers between devices of one machine through host memory: what a link
// between them does faster, and what that is compared with.
#ifndef CARAVAN_WORKER_OPS_CUDA_HOST_EXCHANGE_H_
#define CARAVAN_WORKER_OPS_CUDA_HOST_EXCHANGE_H_

#include <cstddef>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "worker/ops/cuda/device.h"

namespace caravan::worker::cuda {

// Copies of one device.
class ExchangeCopies {
 public:
  virtual ~ExchangeCopies() = default;
  // `target` is whole on return, and so is all that was asked before.
  virtual absl::Status ToHost(void* target, const void* source,
                              size_t bytes) = 0;
  // May read `source` until the next ToHost has returned.
  virtual absl::Status FromHost(void* target, const void* source,
                                size_t bytes) = 0;
};

// A meeting of `ranks` threads, each with its device. Thread-safe.
class HostExchange {
 public:
  static constexpr size_t kPieceBytes = size_t{1} << 20;

  static size_t MemoryBytes(int ranks) {
    return 2 * static_cast<size_t>(ranks) * kPieceBytes;
  }
  // `memory` of MemoryBytes(ranks) must outlive this.
  HostExchange(int ranks, std::byte* memory) : ranks_(ranks), memory_(memory) {}

  // Waits for all other ranks, which must gather as many bytes. The error that
  // Break was given, or that of `copies`, after which the exchange is broken.
  absl::Status Gather(int rank, const PeerGather& gather,
                      ExchangeCopies& copies);

  // Ends all waiting, now and later, with `status`, which is not OK.
  void Break(const absl::Status& status);

 private:
  // Where a rank's piece lies, of even and of odd turns: a rank writes into a
  // turn's memory when all have read what was there two turns before.
  std::byte* Place(bool odd, int rank) const {
    return memory_ + (static_cast<size_t>(odd) * ranks_ + rank) * kPieceBytes;
  }
  absl::Status Piece(int rank, const PeerGather& gather, int64_t offset,
                     int64_t bytes, ExchangeCopies& copies);
  // Waits until all ranks have come.
  absl::Status Meet();
  // Which of the two places the next turn takes.
  bool odd();

  const int ranks_;
  std::byte* const memory_;
  absl::Mutex mutex_;
  absl::CondVar met_;
  int arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_HOST_EXCHANGE_H_
