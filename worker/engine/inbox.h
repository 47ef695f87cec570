// The engine's door: groups and cancels from any thread, for the engine
// thread, and what these threads may know without asking it.
#ifndef CARAVAN_WORKER_ENGINE_INBOX_H_
#define CARAVAN_WORKER_ENGINE_INBOX_H_

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "worker/engine/engine.h"

namespace caravan::worker {

// A cancel on its way to the scheduler.
struct Cancellation {
  GroupId group = 0;
  std::vector<int32_t> choices;  // empty: all
};

// Thread-safe. The functions of the engine thread say so.
class Inbox {
 public:
  explicit Inbox(const EngineOptions& options) : options_(options) {}

  // Takes the group, or refuses it as Engine::Submit says.
  absl::Status Submit(GroupRequest request);

  // Removes the group when it is still here, else passes the cancel on. Does
  // nothing for groups that are not alive.
  void Cancel(GroupId id);

  // The same for choices of the group; without any it does nothing.
  void CancelChoices(GroupId id, std::vector<int32_t> choices);

  // From now on Submit refuses with `status`.
  void Close(absl::Status status);
  void Stop();

  // What was submitted and is in no report yet: a long step must not hide it
  // from routers.
  struct Unreported {
    int32_t sequences = 0;
    int64_t tokens = 0;  // prompts and resumed outputs, as WaitFor counts
  };
  Unreported unreported() const;

  // Whether a group is alive: here, waiting or running.
  bool AnyAlive() const;

  // Engine thread. Waits for a group, a cancel or Stop; false after Stop.
  bool AwaitWork();
  bool stopped() const;
  // Engine thread.
  std::vector<GroupRequest> TakeGroups();
  std::vector<Cancellation> TakeCancels();

  // Engine thread. After a step: groups that are no longer alive, sequences
  // that still wait for the first time, and how long a place in the queue
  // takes to get free.
  void Update(const std::vector<GroupId>& ended, int32_t queued_sequences,
              absl::Duration retry_after);

 private:
  absl::Status CheckShape(const GroupRequest& request) const;
  absl::Status CheckFits(const GroupRequest& request) const;
  static void Count(const std::vector<GroupRequest>& groups, Unreported& sum);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_ || !groups_.empty() || !cancels_.empty();
  }

  const EngineOptions options_;
  mutable absl::Mutex mutex_;
  absl::Status closed_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<GroupRequest> groups_ ABSL_GUARDED_BY(mutex_);
  std::vector<Cancellation> cancels_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<GroupId> alive_ ABSL_GUARDED_BY(mutex_);
  Unreported taken_ ABSL_GUARDED_BY(mutex_);            // since the last Update
  int32_t sequences_here_ ABSL_GUARDED_BY(mutex_) = 0;  // of groups_
  int32_t sequences_taken_ ABSL_GUARDED_BY(mutex_) = 0;  // that wait inside
  absl::Duration retry_after_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(1);
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_ENGINE_INBOX_H_
