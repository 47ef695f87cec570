#include "worker/kv/prefix_index.h"

#include <algorithm>
#include <cstddef>
#include <optional>

namespace caravan::worker {

std::vector<BlockId> PrefixIndex::Find(const kv::BlockHash& root,
                                       std::span<const kv::BlockHash> hashes,
                                       std::span<const int32_t> ids) const {
  std::vector<BlockId> blocks;
  const kv::BlockHash* parent = &root;
  for (size_t i = 0; i < hashes.size(); ++i) {
    const auto it = entries_.find(hashes[i]);
    if (it == entries_.end()) break;
    const Entry& entry = it->second;
    const auto wanted = ids.subspan(i * kv::kBlockTokens, kv::kBlockTokens);
    if (entry.parent != *parent || !std::ranges::equal(entry.ids, wanted)) {
      break;
    }
    blocks.push_back(entry.block);
    parent = &hashes[i];
  }
  return blocks;
}

bool PrefixIndex::Insert(const kv::BlockHash& parent, const kv::BlockHash& hash,
                         std::span<const int32_t> ids, BlockId block) {
  if (entries_.contains(hash) || pool_->kept(block)) return false;
  Entry entry{.block = block, .parent = parent};
  std::ranges::copy(ids.first(kv::kBlockTokens), entry.ids.begin());
  entries_.emplace(hash, entry);
  hash_of_block_.emplace(block, hash);
  pool_->Keep(block);
  log_.emplace_back(hash, true);
  return true;
}

void PrefixIndex::Forget(BlockId block) {
  const auto it = hash_of_block_.find(block);
  if (it == hash_of_block_.end()) return;
  log_.emplace_back(it->second, false);
  entries_.erase(it->second);
  hash_of_block_.erase(it);
  pool_->Forget(block);
}

bool PrefixIndex::EvictOldest() {
  const std::optional<BlockId> block = pool_->OldestCached();
  if (!block) return false;
  Forget(*block);
  return true;
}

PrefixIndexChanges PrefixIndex::TakeChanges() {
  // Stores and removals of one hash alternate, so that their sum says what is
  // left of them.
  absl::flat_hash_map<kv::BlockHash, int> sums;
  for (const auto& [hash, stored] : log_) sums[hash] += stored ? 1 : -1;
  PrefixIndexChanges changes;
  for (const auto& [hash, stored] : log_) {
    int& sum = sums[hash];
    if (sum == 0) continue;
    (sum > 0 ? changes.stored : changes.removed).push_back(hash);
    sum = 0;
  }
  log_.clear();
  return changes;
}

std::vector<kv::BlockHash> PrefixIndex::Hashes() const {
  std::vector<kv::BlockHash> hashes;
  hashes.reserve(entries_.size());
  for (const auto& [hash, entry] : entries_) hashes.push_back(hash);
  return hashes;
}

absl::Status PrefixIndex::Audit() const {
  int32_t kept = 0;
  for (BlockId block = 0; block < pool_->capacity(); ++block) {
    if (pool_->kept(block)) ++kept;
  }
  if (kept != size() || hash_of_block_.size() != entries_.size()) {
    return absl::InternalError("index and pool keep different blocks");
  }
  for (const auto& [hash, entry] : entries_) {
    const auto it = hash_of_block_.find(entry.block);
    if (it == hash_of_block_.end() || it->second != hash ||
        !pool_->kept(entry.block)) {
      return absl::InternalError("an entry's block is not kept for it");
    }
  }
  return absl::OkStatus();
}

}  // namespace caravan::worker
