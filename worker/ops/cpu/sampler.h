// The sampling rule of worker/ops/sample.h, vectorized and spread over the
// team by rows; same results.
#ifndef CARAVAN_WORKER_OPS_CPU_SAMPLER_H_
#define CARAVAN_WORKER_OPS_CPU_SAMPLER_H_

#include "worker/ops/cpu/kernels.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/ops/ops.h"

namespace caravan::worker::cpu {

// Not thread-safe: one caller at a time.
class Sampler {
 public:
  Sampler(const KernelTable& kernels, ThreadTeam& team)
      : kernels_(kernels), team_(team) {}

  void Run(const SampleArgs& args);

 private:
  const KernelTable& kernels_;
  ThreadTeam& team_;
  WorkShares shares_;
};

}  // namespace caravan::worker::cpu

#endif  // CARAVAN_WORKER_OPS_CPU_SAMPLER_H_
