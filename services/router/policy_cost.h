// Places where the request costs least, counted in KV blocks of work:
//
//   prefill   blocks to compute before its first token: what waits there and
//             what of the prompt is not in the prefix cache, slower replicas
//             counting more
// + decode    blocks that each step reads, its own included
// + pressure  blocks that do not fit, four times: sequences would be parked
// + queue     sequences that would wait for a place in the running set
//
// A cached prefix thus wins until its replica is busier than the prefix
// saves. What is placed but not yet in a heartbeat counts like load. Ties go
// round.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_COST_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_COST_H_

#include <cstddef>
#include <string_view>
#include <vector>

#include "services/router/policy.h"

namespace caravan::router {

class CostPolicy final : public Policy {
 public:
  std::string_view name() const override { return "cost"; }
  std::vector<size_t> Rank(const PlacementQuery& query,
                           const CandidateTable& candidates,
                           size_t most) override;

 private:
  void FillCosts(const PlacementQuery& query, const CandidateTable& candidates);

  size_t turn_ = 0;
  std::vector<float> costs_;  // of the placement under way, by row
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_COST_H_
