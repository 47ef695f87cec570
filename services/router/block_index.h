// Which replica has which KV blocks, as their numbered events tell. A hint: a
// wrong entry costs time, never correctness, because workers compare ids
// before they trust a hash.
//
// One table from block to holders, in shards that grow one by one: no change
// stalls the rest. A block takes 16 bytes in a table that is 7/16 to 7/8 full,
// its first three holders included; further ones 2 bytes each in a list that
// is at most twice too long. A replica that is forgotten is gone at once for
// every question; its entries are cleared bit by bit.
//
// Not thread-safe.
//
// Invariant: entry_count() is the sum over replicas and at most max_entries.
#ifndef CARAVAN_SERVICES_ROUTER_BLOCK_INDEX_H_
#define CARAVAN_SERVICES_ROUTER_BLOCK_INDEX_H_

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/kv/block_hash.h"
#include "services/router/holder_table.h"

namespace caravan::router {

// Changes of one replica's prefix cache in one epoch.
struct KvChange {
  int64_t sequence_number = 0;  // from 1, without gaps
  bool snapshot = false;        // `stored` is everything
  std::vector<kv::BlockHash> stored;
  std::vector<kv::BlockHash> removed;
};

// A replica that has leading blocks of a chain.
struct BlockMatch {
  int32_t tag = 0;  // as it was bound
  int32_t blocks = 0;
};

class BlockIndex {
 public:
  // Pairs of block and replica: at most 37 bytes each, where no two replicas
  // have a block in common, and less where they do.
  static constexpr int64_t kDefaultMaxEntries = int64_t{32} << 20;

  explicit BlockIndex(int64_t max_entries = kDefaultMaxEntries);

  enum class Applied {
    kYes,
    kRepeated,        // an old number: nothing was changed
    kSnapshotWanted,  // a gap: changes are ignored until a snapshot comes
    kWaiting,         // ignored: the snapshot has been asked for
  };
  Applied Apply(const std::string& worker_id, const KvChange& change);

  // The last number that was understood; 0 before the first.
  int64_t LastSequenceNumber(const std::string& worker_id) const;

  // What Match calls the replica; -1 until then.
  void Bind(const std::string& worker_id, int32_t tag);

  // Appends every replica that has the chain's first block, each once, with
  // the number of its leading blocks. Workers evict the deepest blocks first,
  // so who has a block has those before it: the places where holders drop out
  // are found by halving. Where there are very many the count may be too low.
  void Match(std::span<const kv::BlockHash> chain,
             std::vector<BlockMatch>* matches) const;

  // Leading blocks of `chain` that the replica has, counted one by one.
  int32_t MatchedBlocks(const std::string& worker_id,
                        std::span<const kv::BlockHash> chain) const;

  // Forgets a replica, as when it dies or begins a new epoch.
  void Forget(const std::string& worker_id);

  // Clears a part of what was forgotten; to be called now and then.
  void Sweep();

  int64_t CountOf(const std::string& worker_id) const;
  int64_t entry_count() const { return entry_count_; }
  int64_t max_entries() const { return max_entries_; }
  // Blocks that were not taken because the index was full.
  int64_t dropped_count() const { return dropped_count_; }
  // Blocks that somebody has, forgotten ones included until they are cleared.
  int64_t block_count() const { return table_.size(); }
  // Heap memory of the index.
  int64_t memory_bytes() const;

 private:
  // A replica in one of its lives.
  struct Holder {
    int32_t tag = -1;
    int64_t count = 0;  // of its blocks
    bool alive = false;
  };
  struct Life {
    HolderId holder = 0;
    int64_t last_sequence_number = 0;
    bool waits_for_snapshot = false;
  };
  struct Retired {
    HolderId holder = 0;
    int64_t until_sweep = 0;  // then no entry names it
  };

  Life& LifeOf(const std::string& worker_id);
  HolderId NewHolder(int32_t tag);
  void Retire(HolderId holder);
  void SweepShard();
  bool HasLiveHolder(const kv::BlockHash& hash) const;
  void PrefetchFirst(std::span<const kv::BlockHash> hashes) const;
  void PrefetchMiddles(std::span<const kv::BlockHash> chain, int32_t low,
                       int32_t high, int levels) const;
  int32_t LiveDepth(std::span<const kv::BlockHash> chain) const;
  size_t Mark(std::span<const kv::BlockHash> chain, int32_t position) const;
  void MarkBetween(std::span<const kv::BlockHash> chain, int32_t low,
                   size_t low_size, int32_t high, size_t high_size,
                   int* budget) const;
  void StoreAll(HolderId holder, const std::vector<kv::BlockHash>& hashes);
  void RemoveAll(HolderId holder, const std::vector<kv::BlockHash>& hashes);

  const int64_t max_entries_;
  int64_t entry_count_ = 0;
  int64_t dropped_count_ = 0;
  HolderTable table_;
  absl::flat_hash_map<std::string, Life> lives_;  // by worker id
  std::vector<Holder> holders_;                   // by HolderId
  std::vector<HolderId> free_holders_;
  std::deque<Retired> retired_;  // oldest first
  int64_t swept_shards_ = 0;     // ever
  // Of Match, kept for its memory: blocks by holder, and who has any.
  mutable std::vector<int32_t> depths_;
  mutable std::vector<HolderId> marked_;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_BLOCK_INDEX_H_
