// Computes plans, in order. The engine never sees logits.
#ifndef CARAVAN_WORKER_ENGINE_MODEL_RUNNER_H_
#define CARAVAN_WORKER_ENGINE_MODEL_RUNNER_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/batch_plan.h"

namespace caravan::worker {

// AddSequence, DropSequence and Launch form one ordered stream of commands: a
// plan sees the sequences as they were when it was launched.
//
// Called by the engine thread only. An error of Launch or Collect is sticky:
// the runner is lost, and so are its blocks.
class ModelRunner {
 public:
  virtual ~ModelRunner() = default;

  virtual void AddSequence(SequenceSpec spec) = 0;
  virtual void DropSequence(SequenceId id) = 0;

  // Starts a plan and returns at once. At most one unfinished sampling plan
  // per sequence.
  virtual absl::Status Launch(BatchPlan plan) = 0;

  // Waits for the oldest launched plan. Precondition: in_flight() > 0.
  virtual absl::StatusOr<StepResult> Collect() = 0;

  // Plans launched and not collected.
  virtual int in_flight() const = 0;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_ENGINE_MODEL_RUNNER_H_
