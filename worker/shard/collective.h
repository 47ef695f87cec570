// What the ranks of a stage have between them: sums of products whose K is
// dealt out to them.
#ifndef CARAVAN_WORKER_SHARD_COLLECTIVE_H_
#define CARAVAN_WORKER_SHARD_COLLECTIVE_H_

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/tensor/view.h"

namespace caravan::worker {

// Ranks are a power of two, and each has the sum of its own segments: the
// subtree of Tree8 (worker/ops/ops.h) above them.
struct AllReduceAddArgs {
  View<const float> partial;    // (T, D), this rank's
  std::span<const float> bias;  // (D) or empty
  bool flush = false;           // sums as FlushingAdd makes them: of BfChain
  View<float> x;                // (T, D), in and out
};

class Collective {
 public:
  virtual ~Collective() = default;

  // x += Tree(partials of all ranks, in the order of the ranks) + bias. Every
  // rank calls it, with its own number and equal shapes, whether or not it has
  // failed before; `x` is whole when every rank has returned.
  virtual absl::Status AllReduceAdd(int rank, const AllReduceAddArgs& args) = 0;
};

// Over memory that all ranks share, `x` included: each sums its own columns.
// A member of `team`, which must outlive this, is a rank and calls it in the
// team's body.
class HostCollective final : public Collective {
 public:
  explicit HostCollective(cpu::ThreadTeam* team);

  absl::Status AllReduceAdd(int rank, const AllReduceAddArgs& args) override;

 private:
  cpu::ThreadTeam& team_;
  std::vector<View<const float>> partials_;  // each its rank's own
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SHARD_COLLECTIVE_H_
