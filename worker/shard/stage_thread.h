// The thread that computes a shard's part of every plan.
#ifndef CARAVAN_WORKER_SHARD_STAGE_THREAD_H_
#define CARAVAN_WORKER_SHARD_STAGE_THREAD_H_

#include <deque>
#include <memory>
#include <span>
#include <thread>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/engine/batch_plan.h"
#include "worker/shard/shard.h"
#include "worker/shard/stage_link.h"

namespace caravan::worker {

// A plan, and what the stage before made of it: null in the first stage.
struct StageStep {
  BatchPlan plan;
  std::unique_ptr<HiddenStates> hidden;
};

using StageCommand = std::variant<SequenceSpec, SequenceId, StageStep>;

// What comes of the commands, in their order, on the computing thread.
class StageOutput {
 public:
  virtual ~StageOutput() = default;

  // For the stage after this one; not called on the last.
  virtual void OnAdd(const SequenceSpec& spec) = 0;
  virtual void OnDrop(SequenceId id) = 0;
  virtual void OnHidden(const BatchPlan& plan, std::span<const float> hidden,
                        absl::Duration compute_time) = 0;

  // Last stage only.
  virtual void OnResult(StepResult result) = 0;

  // The plan has no result. Sticky: every plan from now on ends so.
  virtual void OnFailure(const absl::Status& status) = 0;
};

// Hears how long this stage computed on a step; on the computing thread.
class StageObserver {
 public:
  virtual ~StageObserver() = default;
  virtual void OnComputed(absl::Duration time) = 0;
};

// Push is thread-safe. Commands are applied in order; the queue is bounded by
// its users: plans by the depth, sequences by the engine's running set.
class StageThread {
 public:
  // `shard` and `output` must outlive the thread, which alone uses the shard.
  StageThread(Shard* shard, StageOutput* output);
  // Ends after the command that is being applied; others are dropped.
  ~StageThread();

  void Push(StageCommand command);

 private:
  void Loop();
  void Apply(StageCommand command);
  absl::Status Compute(StageStep step);

  Shard& shard_;
  StageOutput& output_;
  absl::Status failure_;  // of the computing thread; the first one

  absl::Mutex mutex_;
  std::deque<StageCommand> commands_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::jthread thread_;  // last: it sees all of the above
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_STAGE_THREAD_H_
