#include "services/router/block_index.h"

namespace caravan::router {

void BlockIndex::Store(Blocks& blocks,
                       const std::vector<kv::BlockHash>& hashes) {
  for (const kv::BlockHash& hash : hashes) {
    if (entry_count_ < max_entries_) {
      if (blocks.hashes.insert(hash).second) ++entry_count_;
    } else if (!blocks.hashes.contains(hash)) {
      ++dropped_count_;
    }
  }
}

void BlockIndex::Clear(Blocks& blocks) {
  entry_count_ -= static_cast<int64_t>(blocks.hashes.size());
  blocks.hashes = {};
}

BlockIndex::Applied BlockIndex::Apply(const std::string& worker_id,
                                      const KvChange& change) {
  Blocks& blocks = workers_[worker_id];
  if (!change.snapshot) {
    if (blocks.waits_for_snapshot) return Applied::kWaiting;
    if (change.sequence_number <= blocks.last_sequence_number) {
      return Applied::kRepeated;
    }
    if (change.sequence_number != blocks.last_sequence_number + 1) {
      blocks.waits_for_snapshot = true;
      return Applied::kSnapshotWanted;
    }
  }
  if (change.snapshot) Clear(blocks);
  for (const kv::BlockHash& hash : change.removed) {
    entry_count_ -= static_cast<int64_t>(blocks.hashes.erase(hash));
  }
  Store(blocks, change.stored);
  blocks.last_sequence_number = change.sequence_number;
  blocks.waits_for_snapshot = false;
  return Applied::kYes;
}

int64_t BlockIndex::LastSequenceNumber(const std::string& worker_id) const {
  const auto it = workers_.find(worker_id);
  return it == workers_.end() ? 0 : it->second.last_sequence_number;
}

int32_t BlockIndex::MatchedBlocks(const std::string& worker_id,
                                  std::span<const kv::BlockHash> chain) const {
  const auto it = workers_.find(worker_id);
  if (it == workers_.end()) return 0;
  int32_t matched = 0;
  for (const kv::BlockHash& hash : chain) {
    if (!it->second.hashes.contains(hash)) break;
    ++matched;
  }
  return matched;
}

void BlockIndex::Forget(const std::string& worker_id) {
  const auto it = workers_.find(worker_id);
  if (it == workers_.end()) return;
  Clear(it->second);
  workers_.erase(it);
}

int64_t BlockIndex::CountOf(const std::string& worker_id) const {
  const auto it = workers_.find(worker_id);
  return it == workers_.end() ? 0
                              : static_cast<int64_t>(it->second.hashes.size());
}

}  // namespace caravan::router
