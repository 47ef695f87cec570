#include "worker/shard/later_stage.h"

#include <utility>

namespace caravan::worker {

LaterStage::LaterStage(Shard* shard, std::unique_ptr<StageLink> next,
                       StageLinkEvents* before, StageObserver* observer)
    : last_(next == nullptr),
      before_(*before),
      observer_(observer),
      next_(std::move(next)),
      thread_(shard, this) {
  shard->DropAllSequences();  // the thread waits for the first command
  if (next_ != nullptr) next_->Start(this);
}

void LaterStage::OnHidden(const BatchPlan& plan, std::span<const float> hidden,
                          absl::Duration compute_time) {
  if (observer_ != nullptr) observer_->OnComputed(compute_time);
  next_->Run(plan, hidden);
}

void LaterStage::OnResult(StepResult result) {
  if (last_ && observer_ != nullptr) {
    observer_->OnComputed(result.compute_time);
  }
  before_.OnResult(std::move(result));
}

void LaterStage::OnFailure(const absl::Status& status) {
  before_.OnBroken(status);
}

void LaterStage::OnBroken(const absl::Status& status) {
  before_.OnBroken(status);
}

}  // namespace caravan::worker
