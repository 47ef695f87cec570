// Which replica has which KV blocks, as their numbered events tell. A hint: a
// wrong entry costs time, never correctness, because workers compare ids
// before they trust a hash.
//
// Not thread-safe.
//
// Invariant: entry_count() is the sum over replicas and at most max_entries.
#ifndef CARAVAN_SERVICES_ROUTER_BLOCK_INDEX_H_
#define CARAVAN_SERVICES_ROUTER_BLOCK_INDEX_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/kv/block_hash.h"

namespace caravan::router {

// Changes of one replica's prefix cache in one epoch.
struct KvChange {
  int64_t sequence_number = 0;  // from 1, without gaps
  bool snapshot = false;        // `stored` is everything
  std::vector<kv::BlockHash> stored;
  std::vector<kv::BlockHash> removed;
};

class BlockIndex {
 public:
  // An entry takes about 20 bytes; by default all of them 160 MB.
  static constexpr int64_t kDefaultMaxEntries = int64_t{8} << 20;

  explicit BlockIndex(int64_t max_entries = kDefaultMaxEntries)
      : max_entries_(max_entries) {}

  enum class Applied {
    kYes,
    kRepeated,        // an old number: nothing was changed
    kSnapshotWanted,  // a gap: changes are ignored until a snapshot comes
    kWaiting,         // ignored: the snapshot has been asked for
  };
  Applied Apply(const std::string& worker_id, const KvChange& change);

  // The last number that was understood; 0 before the first.
  int64_t LastSequenceNumber(const std::string& worker_id) const;

  // Leading blocks of `chain` that the replica has.
  int32_t MatchedBlocks(const std::string& worker_id,
                        std::span<const kv::BlockHash> chain) const;

  // Forgets a replica, as when it dies or begins a new epoch.
  void Forget(const std::string& worker_id);

  int64_t CountOf(const std::string& worker_id) const;
  int64_t entry_count() const { return entry_count_; }
  int64_t max_entries() const { return max_entries_; }
  // Blocks that were not taken because the index was full.
  int64_t dropped_count() const { return dropped_count_; }

 private:
  struct Blocks {
    int64_t last_sequence_number = 0;
    bool waits_for_snapshot = false;
    absl::flat_hash_set<kv::BlockHash> hashes;
  };
  void Store(Blocks& blocks, const std::vector<kv::BlockHash>& hashes);
  void Clear(Blocks& blocks);

  const int64_t max_entries_;
  int64_t entry_count_ = 0;
  int64_t dropped_count_ = 0;
  absl::flat_hash_map<std::string, Blocks> workers_;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_BLOCK_INDEX_H_
