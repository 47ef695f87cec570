// What the ranks of a stage have between them: sums of products whose K is
// dealt out to them.
#ifndef CARAVAN_WORKER_OPS_COLLECTIVE_H_
#define CARAVAN_WORKER_OPS_COLLECTIVE_H_

#include <span>

#include "absl/status/status.h"
#include "worker/tensor/view.h"

namespace caravan::worker {

// Ranks are a power of two, and each has the sum of its own segments: the
// subtree of Tree8 (worker/ops/ops.h) above them. All lies in memory that the
// collective reaches.
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

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_COLLECTIVE_H_
