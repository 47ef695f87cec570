// A stage that is not the first: takes commands from the stage before, gives
// them on to the one behind, and brings results back.
#ifndef CARAVAN_WORKER_SHARD_LATER_STAGE_H_
#define CARAVAN_WORKER_SHARD_LATER_STAGE_H_

#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/shard/shard.h"
#include "worker/shard/stage_link.h"
#include "worker/shard/stage_thread.h"

namespace caravan::worker {

// Thread-safe as StageThread is.
class LaterStage final : private StageOutput, private StageLinkEvents {
 public:
  // `next` is null for the last stage and only for it. `shard`, whose
  // sequences are forgotten, `before` and `observer` (may be null) must outlive
  // the stage.
  LaterStage(Shard* shard, std::unique_ptr<StageLink> next,
             StageLinkEvents* before, StageObserver* observer);

  void Push(StageCommand command) { thread_.Push(std::move(command)); }

 private:
  void OnAdd(const SequenceSpec& spec) override { next_->AddSequence(spec); }
  void OnDrop(SequenceId id) override { next_->DropSequence(id); }
  void OnHidden(const BatchPlan& plan, std::span<const float> hidden,
                absl::Duration compute_time) override;
  // From this stage's computation, or from the stage behind.
  void OnResult(StepResult result) override;
  void OnFailure(const absl::Status& status) override;
  void OnBroken(const absl::Status& status) override;

  const bool last_;
  StageLinkEvents& before_;
  StageObserver* const observer_;
  const std::unique_ptr<StageLink> next_;
  StageThread thread_;  // last: it sees all of the above
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_LATER_STAGE_H_
