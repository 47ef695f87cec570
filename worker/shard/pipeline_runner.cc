#include "worker/shard/pipeline_runner.h"

#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "worker/shard/shard_runner.h"

namespace caravan::worker {

PipelineRunner::PipelineRunner(Shard* shard, std::unique_ptr<StageLink> next,
                               const PipelineOptions& options,
                               std::function<void(const absl::Status&)> on_lost)
    : shard_(*shard),
      options_(options),
      on_lost_(std::move(on_lost)),
      next_(std::move(next)),
      thread_(shard, this) {
  next_->Start(this);
}

void PipelineRunner::AddSequence(SequenceSpec spec) {
  thread_.Push(std::move(spec));
}

void PipelineRunner::DropSequence(SequenceId id) { thread_.Push(id); }

absl::Status PipelineRunner::Launch(BatchPlan plan) {
  CARAVAN_RETURN_IF_ERROR(CheckLaunch(plan, in_flight_, options_.max_in_flight,
                                      shard_.max_step_tokens()));
  thread_.Push(StageStep{std::move(plan), nullptr});
  ++in_flight_;
  return absl::OkStatus();
}

absl::StatusOr<StepResult> PipelineRunner::Collect() {
  if (in_flight_ == 0) {
    return MakeError(Reason::kInternal, "no plan is in flight");
  }
  --in_flight_;
  return results_.Pop(options_.step_timeout);
}

void PipelineRunner::OnHidden(const BatchPlan& plan,
                              std::span<const float> hidden,
                              absl::Duration compute_time) {
  if (options_.observer != nullptr) {
    options_.observer->OnComputed(compute_time);
  }
  {
    absl::MutexLock lock(&mutex_);
    started_.push_back(absl::Now() - compute_time);
  }
  next_->Run(plan, hidden);
}

void PipelineRunner::OnResult(StepResult result) {
  {
    absl::MutexLock lock(&mutex_);
    if (started_.empty()) return;  // of a plan that was never sent
    result.compute_time = absl::Now() - started_.front();
    started_.pop_front();
  }
  results_.Push(std::move(result));
}

void PipelineRunner::OnFailure(const absl::Status& status) {
  results_.Fail(status);
}

void PipelineRunner::OnBroken(const absl::Status& status) {
  if (results_.Fail(status)) on_lost_(status);
}

}  // namespace caravan::worker
