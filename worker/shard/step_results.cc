#include "worker/shard/step_results.h"

#include <utility>

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::worker {

void StepResults::Push(StepResult result) {
  absl::MutexLock lock(&mutex_);
  if (failure_.ok()) results_.push_back(std::move(result));
}

bool StepResults::Fail(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (!failure_.ok()) return false;
  failure_ = status;
  return true;
}

absl::StatusOr<StepResult> StepResults::Pop(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  if (!mutex_.AwaitWithTimeout(absl::Condition(this, &StepResults::ReadyLocked),
                               timeout)) {
    failure_ =
        MakeError(Reason::kWorkerLost, StrCat("a step must end within ",
                                              absl::FormatDuration(timeout),
                                              "; a stage gave no answer"));
  }
  if (results_.empty()) return failure_;
  StepResult result = std::move(results_.front());
  results_.pop_front();
  return result;
}

}  // namespace caravan::worker
