#include "worker/kv/block_pool.h"

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::worker {

BlockLease& BlockLease::operator=(BlockLease&& other) noexcept {
  if (this != &other) {
    Reset();
    pool_ = other.pool_;
    blocks_ = std::exchange(other.blocks_, {});
  }
  return *this;
}

void BlockLease::Append(BlockLease other) {
  if (other.blocks_.empty()) return;
  pool_ = other.pool_;
  blocks_.insert(blocks_.end(), other.blocks_.begin(), other.blocks_.end());
  other.blocks_.clear();
}

void BlockLease::Reset() {
  // The deepest block first: it is then the first to be evicted, before those
  // without which it could not be found.
  while (!blocks_.empty()) {
    pool_->Release(blocks_.back());
    blocks_.pop_back();
  }
}

BlockPool::BlockPool(int32_t capacity)
    : references_(capacity),
      kept_(capacity),
      older_(capacity + 1),
      newer_(capacity + 1) {
  free_.reserve(capacity);
  for (BlockId block = capacity - 1; block >= 0; --block) {
    free_.push_back(block);
  }
  older_[capacity] = newer_[capacity] = capacity;
}

absl::StatusOr<BlockLease> BlockPool::Lease(int32_t count) {
  if (count > free_count()) {
    return MakeError(
        Reason::kKvExhausted,
        StrCat("a lease must be at most the ", free_count(),
               " free KV blocks; got ", count),
        {{"limit", StrCat(free_count())}, {"value", StrCat(count)}});
  }
  std::vector<BlockId> blocks(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - count);
  for (const BlockId block : blocks) references_[block] = 1;
  leased_count_ += count;
  return BlockLease(this, std::move(blocks));
}

BlockLease BlockPool::Share(std::span<const BlockId> blocks) {
  for (const BlockId block : blocks) {
    if (references_[block]++ > 0) continue;
    Unlink(block);
    ++leased_count_;
  }
  return BlockLease(this, {blocks.begin(), blocks.end()});
}

void BlockPool::Keep(BlockId block) { kept_[block] = true; }

void BlockPool::Forget(BlockId block) {
  if (cached(block)) {
    Unlink(block);
    free_.push_back(block);
  }
  kept_[block] = false;
}

std::optional<BlockId> BlockPool::OldestCached() const {
  if (cached_count_ == 0) return std::nullopt;
  return newer_[capacity()];
}

void BlockPool::Release(BlockId block) {
  if (--references_[block] > 0) return;
  --leased_count_;
  if (kept_[block]) {
    LinkNewest(block);
  } else {
    free_.push_back(block);
  }
}

void BlockPool::LinkNewest(BlockId block) {
  const BlockId ring = capacity();
  older_[block] = older_[ring];
  newer_[block] = ring;
  newer_[older_[ring]] = block;
  older_[ring] = block;
  ++cached_count_;
}

void BlockPool::Unlink(BlockId block) {
  newer_[older_[block]] = newer_[block];
  older_[newer_[block]] = older_[block];
  --cached_count_;
}

absl::Status BlockPool::Audit() const {
  std::vector<int> seen(capacity());
  for (const BlockId block : free_) {
    ++seen[block];
    if (references_[block] != 0 || kept_[block]) {
      return absl::InternalError(StrCat("free block ", block, " is in use"));
    }
  }
  int32_t cached = 0;
  for (BlockId b = newer_[capacity()]; b != capacity(); b = newer_[b]) {
    ++seen[b];
    ++cached;
    if (references_[b] != 0 || !kept_[b] || cached > capacity()) {
      return absl::InternalError(StrCat("cached block ", b, " is not"));
    }
  }
  int32_t leased = 0;
  for (BlockId block = 0; block < capacity(); ++block) {
    if (references_[block] > 0) {
      ++seen[block];
      ++leased;
    }
    if (references_[block] < 0 || seen[block] != 1) {
      return absl::InternalError(
          StrCat("block ", block, " is in ", seen[block], " states"));
    }
  }
  if (cached != cached_count_ || leased != leased_count_) {
    return absl::InternalError("cached or leased blocks are miscounted");
  }
  return absl::OkStatus();
}

}  // namespace caravan::worker
