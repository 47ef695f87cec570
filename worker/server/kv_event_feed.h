// The prefix cache as routers follow it: changes, numbered from 1 per
// (worker, epoch), kept for a while for those who lag, and a snapshot for
// those who lag more.
#ifndef CARAVAN_WORKER_SERVER_KV_EVENT_FEED_H_
#define CARAVAN_WORKER_SERVER_KV_EVENT_FEED_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "caravan/v1/router.pb.h"
#include "common/kv/block_hash.h"
#include "worker/engine/engine.h"

namespace caravan::worker {

// Told when KV events begin to wait for being sent; thread-safe, cheap.
class KvEventListener {
 public:
  virtual ~KvEventListener() = default;
  virtual void NotifyEvents() = 0;
};

// Thread-safe: the engine thread applies, the registration thread reads.
class KvEventFeed {
 public:
  // Keeps numbered events of up to `max_kept_hashes` in all.
  explicit KvEventFeed(size_t max_kept_hashes = 65536)
      : max_kept_hashes_(max_kept_hashes) {}

  // Takes a step's changes in. Cheap: they get a number later. Returns whether
  // they are the first to wait for one.
  bool Apply(const KvChanges& changes);

  // Whether something waits for a number.
  bool pending() const;

  // Numbers what was applied since the last call as one event.
  void Flush();

  // The event after number `last`; nothing when there is none. Where that
  // event is no longer kept: a snapshot with the newest number.
  std::optional<v1::KvEvents> After(int64_t last) const;

  // The whole content, with the newest number (0 before the first event).
  v1::KvEvents Snapshot() const;

 private:
  v1::KvEvents SnapshotLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddLocked(const kv::BlockHash& hash, int change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropOldLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t max_kept_hashes_;
  mutable absl::Mutex mutex_;
  // As of event `newest_`.
  absl::flat_hash_set<kv::BlockHash> content_ ABSL_GUARDED_BY(mutex_);
  // Net changes since: +1 stored, -1 removed.
  absl::flat_hash_map<kv::BlockHash, int> pending_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::KvEvents> kept_ ABSL_GUARDED_BY(mutex_);  // up to newest_
  size_t kept_hashes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t newest_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_KV_EVENT_FEED_H_
