// Each replica in its turn, whatever its load: the yardstick for the others.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_ROUND_ROBIN_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_ROUND_ROBIN_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "services/router/policy.h"

namespace caravan::router {

class RoundRobinPolicy final : public Policy {
 public:
  // Begins anywhere.
  explicit RoundRobinPolicy(uint64_t seed) : turn_(seed) {}

  std::string_view name() const override { return "round_robin"; }
  std::vector<size_t> Rank(const PlacementQuery& query,
                           const CandidateTable& candidates,
                           size_t most) override;

 private:
  size_t turn_;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_ROUND_ROBIN_H_
