// A published policy, for comparison (Dynamo's KV router): blocks of prefill
// that are active or would come, less the overlap, times a scale, plus blocks
// that decode holds. Least goes first.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_OVERLAP_COST_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_OVERLAP_COST_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "services/router/policy.h"
#include "services/router/policy_turns.h"

namespace caravan::router {

struct OverlapCostOptions {
  double prefill_scale = 1;  // weight of prefill against decode blocks
};

class OverlapCostPolicy final : public Policy {
 public:
  explicit OverlapCostPolicy(uint64_t seed,
                             const OverlapCostOptions& options = {})
      : options_(options), turns_(seed) {}

  std::string_view name() const override { return "overlap_cost"; }
  std::vector<size_t> Rank(const PlacementQuery& query,
                           const CandidateTable& candidates,
                           size_t most) override;

 private:
  const OverlapCostOptions options_;
  PolicyTurns turns_;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_OVERLAP_COST_H_
