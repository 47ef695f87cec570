// Hands out KV block ids; the bytes live in the backend's KvStorage. Blocks
// are shared by reference count, so that a cached prefix is paid for once.
#ifndef CARAVAN_WORKER_KV_BLOCK_POOL_H_
#define CARAVAN_WORKER_KV_BLOCK_POOL_H_

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caravan::worker {

using BlockId = int32_t;

class BlockPool;

// References to blocks, in the order of the positions that they hold. Gives
// them back on destruction, the last first. Move-only; must not outlive its
// pool.
class BlockLease {
 public:
  BlockLease() = default;
  BlockLease(BlockLease&& other) noexcept
      : pool_(other.pool_), blocks_(std::exchange(other.blocks_, {})) {}
  BlockLease& operator=(BlockLease&& other) noexcept;
  ~BlockLease() { Reset(); }

  // Takes over the references of `other`, behind its own.
  void Append(BlockLease other);

  // Gives all references back.
  void Reset();

  const std::vector<BlockId>& blocks() const { return blocks_; }
  int32_t size() const { return static_cast<int32_t>(blocks_.size()); }

 private:
  friend class BlockPool;
  BlockLease(BlockPool* pool, std::vector<BlockId> blocks)
      : pool_(pool), blocks_(std::move(blocks)) {}

  BlockPool* pool_ = nullptr;
  std::vector<BlockId> blocks_;
};

// Not thread-safe: owned by the engine thread.
//
// Every block is in one of three states. Leased: somebody holds a reference.
// Cached: nobody does, but Keep() asked that its content stays. Free.
//
// Invariant: free_count() + leased_count() + cached_count() == capacity().
class BlockPool {
 public:
  explicit BlockPool(int32_t capacity);
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // Leases `count` free blocks, or none: kKvExhausted, naming both numbers,
  // when fewer are free.
  absl::StatusOr<BlockLease> Lease(int32_t count);

  // One more reference to each of `blocks`, none of which is free.
  BlockLease Share(std::span<const BlockId> blocks);

  // The leased block becomes cached, not free, when its last reference goes.
  void Keep(BlockId block);
  // Undoes Keep: a cached block is free at once.
  void Forget(BlockId block);

  // The cached block whose last reference went first, or nothing.
  std::optional<BlockId> OldestCached() const;

  int32_t reference_count(BlockId block) const { return references_[block]; }
  bool kept(BlockId block) const { return kept_[block]; }
  bool cached(BlockId block) const {
    return kept_[block] && references_[block] == 0;
  }

  int32_t capacity() const { return static_cast<int32_t>(references_.size()); }
  int32_t free_count() const { return static_cast<int32_t>(free_.size()); }
  int32_t cached_count() const { return cached_count_; }
  int32_t leased_count() const { return leased_count_; }

  // Recounts everything; kInternal when the books do not balance. For tests.
  absl::Status Audit() const;

 private:
  friend class BlockLease;
  void Release(BlockId block);
  void LinkNewest(BlockId block);
  void Unlink(BlockId block);

  std::vector<int32_t> references_;  // indexed by block
  std::vector<bool> kept_;           // indexed by block
  std::vector<BlockId> free_;        // LIFO: the warmest block goes out first
  int32_t leased_count_ = 0;

  // Cached blocks from oldest to newest: a ring through the entry `capacity`.
  std::vector<BlockId> older_;
  std::vector<BlockId> newer_;
  int32_t cached_count_ = 0;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_KV_BLOCK_POOL_H_
