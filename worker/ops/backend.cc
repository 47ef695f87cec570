#include "worker/ops/backend.h"

#include <algorithm>
#include <utility>

#include "common/status/status_macros.h"
#include "worker/tensor/buffer.h"

namespace caravan::worker {
namespace {

struct HostArena final : Arena {
  Buffer buffer;
};

}  // namespace

std::array<int64_t, kSegments + 1> OwnedBorders(const OwnedSegments& owned,
                                                int64_t cols, int64_t unit) {
  if (owned.whole_cols == 0) return SegmentBorders(cols, unit);
  const auto whole = SegmentBorders(owned.whole_cols, unit);
  std::array<int64_t, kSegments + 1> borders;
  for (int s = 0; s <= kSegments; ++s) {
    const int last = owned.first + std::min(s, owned.count);
    borders[s] = whole[last] - whole[owned.first];
  }
  return borders;
}

std::array<int64_t, kSegments + 1> RowsOfRanks(int64_t rows, int ranks) {
  const int64_t units = (rows + kHeadRows - 1) / kHeadRows;
  std::array<int64_t, kSegments + 1> borders;
  for (int r = 0; r <= kSegments; ++r) {
    borders[r] = std::min(rows, std::min(r, ranks) * units / ranks * kHeadRows);
  }
  return borders;
}

absl::StatusOr<std::unique_ptr<Arena>> Backend::AllocateArena(size_t bytes) {
  auto arena = std::make_unique<HostArena>();
  CARAVAN_ASSIGN_OR_RETURN(arena->buffer, Buffer::Allocate(bytes));
  arena->data = arena->buffer.data();
  arena->bytes = ArenaBytes(bytes);
  return arena;
}

size_t Backend::ArenaBytes(size_t bytes) const {
  return Buffer::AllocatedBytes(bytes);
}

absl::StatusOr<std::optional<size_t>> Backend::FreeBytes() const {
  return std::optional<size_t>();
}

absl::Status Backend::ReservePacked(std::span<const MatrixShape>) {
  return absl::OkStatus();
}

absl::Status Backend::Keep(std::span<const float>) { return absl::OkStatus(); }

absl::Status Backend::BeginStep(const StepInputs&) { return absl::OkStatus(); }

}  // namespace caravan::worker
