#include "services/router/block_index.h"

#include <algorithm>

namespace caravan::router {
namespace {

// Shards that a call of Sweep clears.
constexpr int kSweepShards = 64;
// Positions that Match looks at between the first and the deepest block.
constexpr int kMatchBudget = 160;
// Of a change; as many as a core has under way at once, about.
constexpr size_t kPrefetchedBlocks = 16;
// Of halving: seven blocks.
constexpr int kPrefetchedSteps = 3;

// The next position to look at: above `low`, at most `high`.
int32_t Middle(int32_t low, int32_t high) { return low + (high - low + 1) / 2; }

}  // namespace

BlockIndex::BlockIndex(int64_t max_entries) : max_entries_(max_entries) {}

// --- Holders ---------------------------------------------------------------

HolderId BlockIndex::NewHolder(int32_t tag) {
  // Long before all ids are in use, those of old lives are made free.
  while (free_holders_.empty() && holders_.size() > UINT16_MAX &&
         !retired_.empty()) {
    SweepShard();
  }
  if (free_holders_.empty()) {
    free_holders_.push_back(static_cast<HolderId>(holders_.size()));
    holders_.emplace_back();
    depths_.push_back(0);
  }
  const HolderId holder = free_holders_.back();
  free_holders_.pop_back();
  holders_[holder] = {tag, /*count=*/0, /*alive=*/true};
  return holder;
}

void BlockIndex::Retire(HolderId holder) {
  Holder& old = holders_[holder];
  entry_count_ -= old.count;
  const bool has_entries = old.count > 0;
  old = Holder();
  if (has_entries) {
    retired_.push_back({holder, swept_shards_ + HolderTable::kShardCount});
  } else {
    free_holders_.push_back(holder);
  }
}

void BlockIndex::SweepShard() {
  std::vector<bool> gone(holders_.size());
  for (const Retired& retired : retired_) gone[retired.holder] = true;
  table_.Clear(static_cast<int>(swept_shards_ % HolderTable::kShardCount),
               gone);
  ++swept_shards_;
  while (!retired_.empty() && retired_.front().until_sweep <= swept_shards_) {
    free_holders_.push_back(retired_.front().holder);
    retired_.pop_front();
  }
}

void BlockIndex::Sweep() {
  for (int i = 0; i < kSweepShards && !retired_.empty(); ++i) SweepShard();
}

BlockIndex::Life& BlockIndex::LifeOf(const std::string& worker_id) {
  const auto [it, is_new] = lives_.try_emplace(worker_id);
  if (is_new) it->second.holder = NewHolder(/*tag=*/-1);
  return it->second;
}

void BlockIndex::Bind(const std::string& worker_id, int32_t tag) {
  holders_[LifeOf(worker_id).holder].tag = tag;
}

void BlockIndex::Forget(const std::string& worker_id) {
  const auto it = lives_.find(worker_id);
  if (it == lives_.end()) return;
  Retire(it->second.holder);
  lives_.erase(it);
}

// --- Changes ---------------------------------------------------------------

// The index is larger than any cache: what a change of a few blocks reads is
// asked for at once, not one after the other.
void BlockIndex::PrefetchFirst(std::span<const kv::BlockHash> hashes) const {
  const size_t count = std::min(hashes.size(), kPrefetchedBlocks);
  for (size_t i = 0; i < count; ++i) table_.Prefetch(hashes[i]);
}

void BlockIndex::StoreAll(HolderId holder,
                          const std::vector<kv::BlockHash>& hashes) {
  PrefetchFirst(hashes);
  int64_t& count = holders_[holder].count;
  for (const kv::BlockHash& hash : hashes) {
    if (entry_count_ >= max_entries_) {
      const std::span<const HolderId> known = table_.Find(hash);
      const bool there =
          std::find(known.begin(), known.end(), holder) != known.end();
      dropped_count_ += there ? 0 : 1;
    } else if (table_.Add(hash, holder)) {
      ++count;
      ++entry_count_;
    }
  }
}

void BlockIndex::RemoveAll(HolderId holder,
                           const std::vector<kv::BlockHash>& hashes) {
  PrefetchFirst(hashes);
  int64_t& count = holders_[holder].count;
  for (const kv::BlockHash& hash : hashes) {
    if (!table_.Remove(hash, holder)) continue;
    --count;
    --entry_count_;
  }
}

BlockIndex::Applied BlockIndex::Apply(const std::string& worker_id,
                                      const KvChange& change) {
  if (!retired_.empty()) SweepShard();
  Life& life = LifeOf(worker_id);
  if (!change.snapshot) {
    if (life.waits_for_snapshot) return Applied::kWaiting;
    if (change.sequence_number <= life.last_sequence_number) {
      return Applied::kRepeated;
    }
    if (change.sequence_number != life.last_sequence_number + 1) {
      life.waits_for_snapshot = true;
      return Applied::kSnapshotWanted;
    }
  } else if (holders_[life.holder].count > 0) {
    const int32_t tag = holders_[life.holder].tag;
    Retire(life.holder);
    life.holder = NewHolder(tag);
  }
  RemoveAll(life.holder, change.removed);
  StoreAll(life.holder, change.stored);
  life.last_sequence_number = change.sequence_number;
  life.waits_for_snapshot = false;
  return Applied::kYes;
}

// --- Questions -------------------------------------------------------------

int64_t BlockIndex::LastSequenceNumber(const std::string& worker_id) const {
  const auto it = lives_.find(worker_id);
  return it == lives_.end() ? 0 : it->second.last_sequence_number;
}

int64_t BlockIndex::CountOf(const std::string& worker_id) const {
  const auto it = lives_.find(worker_id);
  return it == lives_.end() ? 0 : holders_[it->second.holder].count;
}

int32_t BlockIndex::MatchedBlocks(const std::string& worker_id,
                                  std::span<const kv::BlockHash> chain) const {
  const auto it = lives_.find(worker_id);
  if (it == lives_.end()) return 0;
  const HolderId holder = it->second.holder;
  int32_t matched = 0;
  for (const kv::BlockHash& hash : chain) {
    const std::span<const HolderId> known = table_.Find(hash);
    if (std::find(known.begin(), known.end(), holder) == known.end()) break;
    ++matched;
  }
  return matched;
}

bool BlockIndex::HasLiveHolder(const kv::BlockHash& hash) const {
  const std::span<const HolderId> known = table_.Find(hash);
  return std::any_of(known.begin(), known.end(),
                     [this](HolderId h) { return holders_[h].alive; });
}

// Where halving between `low` and `high` leads in the next `levels` steps.
void BlockIndex::PrefetchMiddles(std::span<const kv::BlockHash> chain,
                                 int32_t low, int32_t high, int levels) const {
  if (low >= high || levels == 0) return;
  const int32_t middle = Middle(low, high);
  table_.Prefetch(chain[static_cast<size_t>(middle) - 1]);
  PrefetchMiddles(chain, low, middle - 1, levels - 1);
  PrefetchMiddles(chain, middle, high, levels - 1);
}

// Leading blocks that anybody has.
int32_t BlockIndex::LiveDepth(std::span<const kv::BlockHash> chain) const {
  int32_t low = 0;  // blocks that somebody has
  auto high = static_cast<int32_t>(chain.size());
  for (int step = 0; low < high; ++step) {
    if (step % kPrefetchedSteps == 0) {
      PrefetchMiddles(chain, low, high, kPrefetchedSteps);
    }
    const int32_t middle = Middle(low, high);
    if (HasLiveHolder(chain[static_cast<size_t>(middle) - 1])) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// Notes who has the block at `position`; returns how many do.
size_t BlockIndex::Mark(std::span<const kv::BlockHash> chain,
                        int32_t position) const {
  size_t alive = 0;
  for (const HolderId holder :
       table_.Find(chain[static_cast<size_t>(position)])) {
    if (!holders_[holder].alive) continue;
    ++alive;
    int32_t& depth = depths_[holder];
    if (depth == 0) marked_.push_back(holder);
    depth = std::max(depth, position + 1);
  }
  return alive;
}

// Both ends are marked. Where they have equally many holders these are the
// same ones: nobody drops out between.
void BlockIndex::MarkBetween(std::span<const kv::BlockHash> chain, int32_t low,
                             size_t low_size, int32_t high, size_t high_size,
                             int* budget) const {
  if (low_size == high_size || high - low <= 1 || --*budget < 0) return;
  const int32_t middle = low + (high - low) / 2;
  const size_t size = Mark(chain, middle);
  MarkBetween(chain, middle, size, high, high_size, budget);
  MarkBetween(chain, low, low_size, middle, size, budget);
}

void BlockIndex::Match(std::span<const kv::BlockHash> chain,
                       std::vector<BlockMatch>* matches) const {
  const int32_t depth = LiveDepth(chain);
  if (depth == 0) return;
  const size_t last = Mark(chain, depth - 1);
  const size_t first = Mark(chain, 0);
  int budget = kMatchBudget;
  MarkBetween(chain, 0, first, depth - 1, last, &budget);
  for (const HolderId holder : marked_) {
    matches->push_back({holders_[holder].tag, depths_[holder]});
    depths_[holder] = 0;
  }
  marked_.clear();
}

int64_t BlockIndex::memory_bytes() const {
  return table_.memory_bytes() +
         static_cast<int64_t>(holders_.capacity() * sizeof(Holder) +
                              depths_.capacity() * sizeof(int32_t));
}

}  // namespace caravan::router
