// The replica with the fewest sequences, placed ones included; ties go round.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_LEAST_LOAD_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_LEAST_LOAD_H_

#include <cstddef>
#include <string_view>
#include <vector>

#include "services/router/policy.h"

namespace caravan::router {

class LeastLoadPolicy final : public Policy {
 public:
  std::string_view name() const override { return "least_load"; }
  std::vector<size_t> Rank(const PlacementQuery& query,
                           const CandidateTable& candidates,
                           size_t most) override;

 private:
  size_t turn_ = 0;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_LEAST_LOAD_H_
