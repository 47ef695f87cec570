// Results on their way from the threads that compute to the one that collects.
#ifndef CARAVAN_WORKER_SHARD_STEP_RESULTS_H_
#define CARAVAN_WORKER_SHARD_STEP_RESULTS_H_

#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/engine/batch_plan.h"

namespace caravan::worker {

// Thread-safe. Bounded by the plans in flight.
class StepResults {
 public:
  void Push(StepResult result);

  // Sticky: what comes after the results that are here already. Returns
  // whether it is the first failure.
  bool Fail(const absl::Status& status);

  // Waits for the oldest result or a failure. Error: the failure, or
  // kWorkerLost naming the time when that took longer than `timeout`.
  absl::StatusOr<StepResult> Pop(absl::Duration timeout);

 private:
  bool ReadyLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !results_.empty() || !failure_.ok();
  }

  absl::Mutex mutex_;
  std::deque<StepResult> results_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_STEP_RESULTS_H_
