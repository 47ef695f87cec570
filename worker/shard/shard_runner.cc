#include "worker/shard/shard_runner.h"

#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker {

absl::Status CheckLaunch(const BatchPlan& plan, int in_flight,
                         int32_t max_in_flight, int32_t max_step_tokens) {
  if (in_flight >= max_in_flight) {
    return MakeError(Reason::kInternal,
                     StrCat("plans in flight must be at most ", max_in_flight,
                            "; got one more"));
  }
  if (plan.token_count() <= max_step_tokens) return absl::OkStatus();
  return MakeError(Reason::kInternal,
                   StrCat("tokens of a plan must be at most ", max_step_tokens,
                          "; got ", plan.token_count()));
}

absl::StatusOr<std::unique_ptr<ShardRunner>> ShardRunner::Create(
    const LoadedModel* model, Backend* backend,
    const ShardRunnerOptions& options) {
  if (!model->description.config.stage.whole()) {
    return MakeError(Reason::kInternal, "a stage alone must not be run");
  }
  CARAVAN_ASSIGN_OR_RETURN(
      std::unique_ptr<Shard> shard,
      Shard::Create(model, backend,
                    {.block_count = options.block_count,
                     .max_step_tokens = options.max_step_tokens,
                     .max_logits_rows = options.max_logits_rows}));
  return std::unique_ptr<ShardRunner>(
      new ShardRunner(std::move(shard), options.max_in_flight));
}

ShardRunner::ShardRunner(std::unique_ptr<Shard> shard, int32_t max_in_flight)
    : max_in_flight_(max_in_flight),
      shard_(std::move(shard)),
      thread_(shard_.get(), this) {}

void ShardRunner::AddSequence(SequenceSpec spec) {
  thread_.Push(std::move(spec));
}

void ShardRunner::DropSequence(SequenceId id) { thread_.Push(id); }

absl::Status ShardRunner::Launch(BatchPlan plan) {
  CARAVAN_RETURN_IF_ERROR(
      CheckLaunch(plan, in_flight_, max_in_flight_, shard_->max_step_tokens()));
  thread_.Push(StageStep{std::move(plan), nullptr});
  ++in_flight_;
  return absl::OkStatus();
}

absl::StatusOr<StepResult> ShardRunner::Collect() {
  if (in_flight_ == 0) {
    return MakeError(Reason::kInternal, "no plan is in flight");
  }
  --in_flight_;
  return results_.Pop(absl::InfiniteDuration());
}

void ShardRunner::OnResult(StepResult result) {
  results_.Push(std::move(result));
}

void ShardRunner::OnFailure(const absl::Status& status) {
  results_.Fail(status);
}

}  // namespace caravan::worker
