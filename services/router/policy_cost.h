// Places where the request costs the fleet least time, counted in KV blocks of
// prefill:
//
//   wait      blocks to compute there before it, placed ones included
// + work      blocks of its own that are not in the prefix cache, times
//             (1 + L * L / 2)
// + decode    blocks that each step reads: a fiftieth of a block's prefill each
// + pressure  blocks that do not fit, four times: sequences would be parked
// + queue     sequences beyond the running set
//
// wait and work count more on slower replicas.
//
// L is the mean number of requests that a replica still has to prefill. Work
// delays not only who brings it but whoever comes until the queue is empty:
// the busier the fleet, the more a cached prefix is worth. An idle fleet thus
// spreads requests, a busy one keeps them together until the wait exceeds what
// the cache saves all. High priorities ask for their own first token alone (L
// is 0); for low ones the second term counts twice.
//
// Ties are drawn.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_COST_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_COST_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "services/router/policy.h"
#include "services/router/policy_turns.h"

namespace caravan::router {

class CostPolicy final : public Policy {
 public:
  explicit CostPolicy(uint64_t seed) : turns_(seed) {}

  std::string_view name() const override { return "cost"; }
  std::vector<size_t> Rank(const PlacementQuery& query,
                           const CandidateTable& candidates,
                           size_t most) override;

 private:
  float WorkWeight(const PlacementQuery& query,
                   const CandidateColumns& columns) const;
  void FillCosts(const PlacementQuery& query, const CandidateTable& candidates);
  void NoteWork(const PlacementQuery& query, const Candidate& chosen);

  PolicyTurns turns_;
  float mean_work_tokens_ = 512;  // uncached, of recent placements
  std::vector<float> costs_;      // of the placement under way, by row
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_COST_H_
