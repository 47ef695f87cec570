// How the stages of a replica talk: commands forward, results back, in order.
// Across processes this is StageService (worker/server); in tests it is a call.
#ifndef CARAVAN_WORKER_SHARD_STAGE_LINK_H_
#define CARAVAN_WORKER_SHARD_STAGE_LINK_H_

#include <cstddef>
#include <span>

#include "absl/status/status.h"
#include "worker/engine/batch_plan.h"

namespace caravan::worker {

// What comes back from the next stage. Thread-safe; called on the link's
// threads, one call at a time; must not block.
class StageLinkEvents {
 public:
  virtual ~StageLinkEvents() = default;
  // The results of plans, in their order.
  virtual void OnResult(StepResult result) = 0;
  // The stage or the way to it is lost. Nothing follows.
  virtual void OnBroken(const absl::Status& status) = 0;
};

// To the next stage. One thread calls; nothing blocks. What is sent to a
// broken link is dropped: OnBroken says so.
class StageLink {
 public:
  // Ends the link: when it returns no event follows.
  virtual ~StageLink() = default;

  // Called once, before anything is sent. A link that broke before says so at
  // once.
  virtual void Start(StageLinkEvents* events) = 0;

  virtual void AddSequence(const SequenceSpec& spec) = 0;
  virtual void DropSequence(SequenceId id) = 0;
  // A plan and its residual stream, which is copied before this returns.
  virtual void Run(const BatchPlan& plan, std::span<const float> hidden) = 0;
};

// The residual stream of a plan as it came, to be copied once, to where it is
// computed on.
class HiddenStates {
 public:
  virtual ~HiddenStates() = default;
  virtual size_t size_bytes() const = 0;
  // Copies size_bytes(). Errors: the bytes are not those that were sent.
  virtual absl::Status CopyTo(std::byte* target) const = 0;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_STAGE_LINK_H_
