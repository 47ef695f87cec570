#include "worker/server/kv_event_feed.h"

#include <utility>

namespace caravan::worker {
namespace {

size_t HashCount(const v1::KvEvents& event) {
  return static_cast<size_t>(event.stored_size() + event.removed_size());
}

}  // namespace

bool KvEventFeed::Apply(const KvChanges& changes) {
  if (changes.stored.empty() && changes.removed.empty()) return false;
  absl::MutexLock lock(&mutex_);
  const bool first = pending_.empty();
  for (const kv::BlockHash& hash : changes.stored) AddLocked(hash, 1);
  for (const kv::BlockHash& hash : changes.removed) AddLocked(hash, -1);
  return first && !pending_.empty();
}

// What cancels out is forgotten, so that what waits is never more than the
// cache holds, even if nobody ever flushes.
void KvEventFeed::AddLocked(const kv::BlockHash& hash, int change) {
  const auto entry = pending_.try_emplace(hash, 0).first;
  entry->second += change;
  if (entry->second == 0) pending_.erase(entry);
}

bool KvEventFeed::pending() const {
  absl::MutexLock lock(&mutex_);
  return !pending_.empty();
}

void KvEventFeed::Flush() {
  absl::MutexLock lock(&mutex_);
  v1::KvEvents event;
  for (const auto& [hash, change] : pending_) {
    if (change > 0 && content_.insert(hash).second) {
      event.add_stored(hash.ToBytes());
    } else if (change < 0 && content_.erase(hash) > 0) {
      event.add_removed(hash.ToBytes());
    }
  }
  pending_.clear();
  if (HashCount(event) == 0) return;
  event.set_sequence_number(++newest_);
  kept_hashes_ += HashCount(event);
  kept_.push_back(std::move(event));
  DropOldLocked();
}

void KvEventFeed::DropOldLocked() {
  while (kept_hashes_ > max_kept_hashes_) {
    kept_hashes_ -= HashCount(kept_.front());
    kept_.pop_front();
  }
}

std::optional<v1::KvEvents> KvEventFeed::After(int64_t last) const {
  absl::MutexLock lock(&mutex_);
  if (last >= newest_) return std::nullopt;
  const int64_t first_kept = newest_ - static_cast<int64_t>(kept_.size()) + 1;
  if (last + 1 < first_kept) return SnapshotLocked();
  return kept_[static_cast<size_t>(last + 1 - first_kept)];
}

v1::KvEvents KvEventFeed::Snapshot() const {
  absl::MutexLock lock(&mutex_);
  return SnapshotLocked();
}

v1::KvEvents KvEventFeed::SnapshotLocked() const {
  v1::KvEvents event;
  event.set_snapshot(true);
  event.set_sequence_number(newest_);
  for (const kv::BlockHash& hash : content_) event.add_stored(hash.ToBytes());
  return event;
}

}  // namespace caravan::worker
