// Brings what a step gave to the sessions that asked for it: one StepOutput
// per step and session.
#ifndef CARAVAN_WORKER_SERVER_STEP_DISPATCHER_H_
#define CARAVAN_WORKER_SERVER_STEP_DISPATCHER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "caravan/v1/worker.pb.h"
#include "common/clock.h"
#include "worker/engine/engine.h"
#include "worker/server/request_observer.h"

namespace caravan::worker {

// One session's side of the dispatcher.
class StepReceiver {
 public:
  virtual ~StepReceiver() = default;
  // On the engine thread; must not block. `ended` are the handles for which
  // nothing follows.
  virtual void Deliver(v1::StepOutput output,
                       const std::vector<uint64_t>& ended) = 0;
};

// Thread-safe. The engine thread dispatches, sessions open and close routes.
class StepDispatcher {
 public:
  // `clock` and `observer` must outlive the dispatcher.
  StepDispatcher(const Clock* clock, RequestObserver* observer)
      : clock_(clock), observer_(observer) {}

  // A group id that was never given before.
  GroupId NextGroupId() { return next_group_.fetch_add(1); }

  // Choices whose events are no longer delivered.
  struct ClosedChoices {
    std::vector<int32_t> choices;  // those that had not ended
    bool last = false;             // with them the group has ended
  };

  // From now on events of the group, whose choices have these (unique)
  // indices, go to `receiver` under `handle`: called before the engine hears
  // of the group.
  void Open(GroupId group, uint64_t handle, const RequestShape& shape,
            std::span<const int32_t> choices,
            std::shared_ptr<StepReceiver> receiver);

  // Whatever still comes of the group is dropped. Returns whether the group
  // had not ended.
  bool Close(GroupId group);

  // Whatever still comes of these choices is dropped. Indices that are not
  // open are ignored.
  ClosedChoices CloseChoices(GroupId group, std::span<const int32_t> choices);

  // Delivers a step, with the load after it.
  void Dispatch(const StepReport& report, const v1::Load& load);

  // Delivers who waits, and who does no longer.
  void Dispatch(const QueueNews& news);

  // Groups that have not ended.
  int64_t open_count() const;

  // Waits until no group is open and all that ended was delivered; false when
  // that took longer.
  bool AwaitNoneOpen(absl::Duration timeout) const;

 private:
  struct ChoiceTimes {
    absl::Time first_token;
    absl::Time last_token;
  };
  struct Route {
    uint64_t handle = 0;
    std::shared_ptr<StepReceiver> receiver;
    RequestShape shape;
    absl::flat_hash_set<int32_t> open_choices;
    bool has_prompt = false;  // scores of a prompt come in parts
    bool has_token = false;
    absl::Time submitted;
    absl::flat_hash_map<int32_t, ChoiceTimes> choices;
  };
  struct Batch;

  // Hands the parts out, in the order of steps.
  void Deliver(Batch batch);
  void AddPrompt(const PromptEvent& event, Batch& batch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddToken(const TokenEvent& event, Batch& batch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddFinish(const FinishEvent& event, Batch& batch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddError(const ErrorEvent& event, Batch& batch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ObserveToken(Route& route, int32_t choice, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ObserveFinish(const Route& route, const FinishEvent& event,
                     absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Null where the choice is not open.
  Route* FindOpen(GroupId group, int32_t choice)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Route* Find(GroupId group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool NoneOpenLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return routes_.empty() && !delivering_;
  }

  const Clock* const clock_;
  RequestObserver* const observer_;
  std::atomic<GroupId> next_group_ = 1;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<GroupId, Route> routes_ ABSL_GUARDED_BY(mutex_);
  bool delivering_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_STEP_DISPATCHER_H_
