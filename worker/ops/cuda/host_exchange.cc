#include "worker/ops/cuda/host_exchange.h"

#include <algorithm>

#include "common/status/status_macros.h"

namespace caravan::worker::cuda {

absl::Status HostExchange::Gather(int rank, const PeerGather& gather,
                                  ExchangeCopies& copies) {
  constexpr int64_t kPiece = int64_t{kPieceBytes};
  for (int64_t offset = 0; offset < gather.bytes; offset += kPiece) {
    const absl::Status status = Piece(
        rank, gather, offset, std::min(kPiece, gather.bytes - offset), copies);
    if (status.ok()) continue;
    Break(status);
    return status;
  }
  return absl::OkStatus();
}

absl::Status HostExchange::Piece(int rank, const PeerGather& gather,
                                 int64_t offset, int64_t bytes,
                                 ExchangeCopies& copies) {
  const bool place = odd();
  const auto size = static_cast<size_t>(bytes);
  CARAVAN_RETURN_IF_ERROR(
      copies.ToHost(Place(place, rank),
                    static_cast<const std::byte*>(gather.part) + offset, size));
  CARAVAN_RETURN_IF_ERROR(Meet());
  auto* const all = static_cast<std::byte*>(gather.all) + offset;
  for (int r = 0; r < ranks_; ++r) {
    CARAVAN_RETURN_IF_ERROR(
        copies.FromHost(all + r * gather.bytes, Place(place, r), size));
  }
  return absl::OkStatus();
}

// The turn moves on only when all have come, so a rank that comes to its next
// turn finds the same number as the others.
bool HostExchange::odd() {
  const absl::MutexLock lock(&mutex_);
  return turn_ % 2 != 0;
}

absl::Status HostExchange::Meet() {
  const absl::MutexLock lock(&mutex_);
  const int64_t turn = turn_;
  if (++arrived_ == ranks_) {
    arrived_ = 0;
    ++turn_;
    met_.SignalAll();
  }
  while (broken_.ok() && turn_ == turn) met_.Wait(&mutex_);
  return broken_;
}

void HostExchange::Break(const absl::Status& status) {
  const absl::MutexLock lock(&mutex_);
  if (broken_.ok()) broken_ = status;
  met_.SignalAll();
}

}  // namespace caravan::worker::cuda
