// The runner of a model in several stages: computes the first one here and
// sends what comes of it to the next; the tokens come back from the last.
#ifndef CARAVAN_WORKER_SHARD_PIPELINE_RUNNER_H_
#define CARAVAN_WORKER_SHARD_PIPELINE_RUNNER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/engine/model_runner.h"
#include "worker/shard/shard.h"
#include "worker/shard/stage_link.h"
#include "worker/shard/stage_thread.h"
#include "worker/shard/step_results.h"

namespace caravan::worker {

struct PipelineOptions {
  // Plans launched and not collected: what any stage has to queue at most.
  int32_t max_in_flight = 3;
  // A step that takes longer from the first stage to the last and back is
  // given up, and the replica with it.
  absl::Duration step_timeout = absl::Seconds(60);
  StageObserver* observer = nullptr;  // of the first stage; must outlive it
};

// Called by one thread (ModelRunner); the computation has its own. A plan sees
// the sequences of every stage as they were when it was launched: commands
// travel in one ordered stream from stage to stage.
class PipelineRunner final : public ModelRunner,
                             private StageOutput,
                             private StageLinkEvents {
 public:
  // `shard` is the first stage and must outlive the runner. `on_lost` is
  // called at most once, on a thread of the link, when a later stage is lost,
  // whether or not a plan is in flight; Launch and Collect fail from then on.
  PipelineRunner(Shard* shard, std::unique_ptr<StageLink> next,
                 const PipelineOptions& options,
                 std::function<void(const absl::Status&)> on_lost);

  void AddSequence(SequenceSpec spec) override;
  void DropSequence(SequenceId id) override;
  absl::Status Launch(BatchPlan plan) override;
  absl::StatusOr<StepResult> Collect() override;
  int in_flight() const override { return in_flight_; }

 private:
  void OnAdd(const SequenceSpec& spec) override { next_->AddSequence(spec); }
  void OnDrop(SequenceId id) override { next_->DropSequence(id); }
  void OnHidden(const BatchPlan& plan, std::span<const float> hidden,
                absl::Duration compute_time) override;
  void OnResult(StepResult result) override;
  void OnFailure(const absl::Status& status) override;
  void OnBroken(const absl::Status& status) override;

  Shard& shard_;
  const PipelineOptions options_;
  const std::function<void(const absl::Status&)> on_lost_;
  int in_flight_ = 0;  // of the calling thread
  StepResults results_;
  absl::Mutex mutex_;
  // When this stage began the steps that the others have now.
  std::deque<absl::Time> started_ ABSL_GUARDED_BY(mutex_);
  const std::unique_ptr<StageLink> next_;
  StageThread thread_;  // last: it sees all of the above
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_PIPELINE_RUNNER_H_
