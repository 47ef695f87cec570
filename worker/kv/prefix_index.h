// Finds computed KV blocks again: block hash to block. A hash never decides:
// a block is trusted when its 16 ids and its parent's hash are equal too.
#ifndef CARAVAN_WORKER_KV_PREFIX_INDEX_H_
#define CARAVAN_WORKER_KV_PREFIX_INDEX_H_

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/kv/block_hash.h"
#include "worker/kv/block_pool.h"

namespace caravan::worker {

// What entered and left the index since the last call of TakeChanges, in
// order. A hash that did both, and so stands as before, is in neither list.
struct PrefixIndexChanges {
  std::vector<kv::BlockHash> stored;
  std::vector<kv::BlockHash> removed;
};

// Not thread-safe: owned by the engine thread. `pool` must outlive the index.
//
// Invariant: exactly the blocks of the index are kept() in the pool.
class PrefixIndex {
 public:
  explicit PrefixIndex(BlockPool* pool) : pool_(pool) {}

  // The blocks of the longest known prefix of `ids`. `hashes` are those of its
  // full blocks, as many as are wanted, the first being a child of `root`. The
  // caller shares the blocks before anything can evict them.
  std::vector<BlockId> Find(const kv::BlockHash& root,
                            std::span<const kv::BlockHash> hashes,
                            std::span<const int32_t> ids) const;

  // Enters a leased block that holds the 16 `ids` after `parent`. Does nothing
  // and returns false when the hash or the block is there already.
  bool Insert(const kv::BlockHash& parent, const kv::BlockHash& hash,
              std::span<const int32_t> ids, BlockId block);

  // Removes the block where it is there.
  void Forget(BlockId block);

  // Frees the least recently used block that nobody leases; false when there
  // is none.
  bool EvictOldest();

  PrefixIndexChanges TakeChanges();

  int32_t size() const { return static_cast<int32_t>(entries_.size()); }
  // Every hash, in no order.
  std::vector<kv::BlockHash> Hashes() const;

  // kInternal when index and pool disagree. For tests.
  absl::Status Audit() const;

 private:
  struct Entry {
    BlockId block = 0;
    kv::BlockHash parent;
    std::array<int32_t, kv::kBlockTokens> ids = {};
  };

  BlockPool* const pool_;
  absl::flat_hash_map<kv::BlockHash, Entry> entries_;
  absl::flat_hash_map<BlockId, kv::BlockHash> hash_of_block_;
  std::vector<std::pair<kv::BlockHash, bool>> log_;  // true: stored
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_KV_PREFIX_INDEX_H_
