// The sums between ranks, over memory that they share. Those of devices are
// worker/ops/cuda/device_collective.h.
#ifndef CARAVAN_WORKER_SHARD_COLLECTIVE_H_
#define CARAVAN_WORKER_SHARD_COLLECTIVE_H_

#include <vector>

#include "absl/status/status.h"
#include "worker/ops/collective.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/tensor/view.h"

namespace caravan::worker {

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
