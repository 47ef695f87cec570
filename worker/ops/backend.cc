#include "worker/ops/backend.h"

#include <utility>

#include "common/status/status_macros.h"
#include "worker/tensor/buffer.h"

namespace caravan::worker {
namespace {

struct HostArena final : Arena {
  Buffer buffer;
};

}  // namespace

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

absl::Status Backend::Keep(std::span<const float>) { return absl::OkStatus(); }

absl::Status Backend::BeginStep(const StepInputs&) { return absl::OkStatus(); }

}  // namespace caravan::worker
