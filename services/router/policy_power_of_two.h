// The less loaded of two random replicas: nearly as even as the least loaded
// of all, without every router running to the same one. The rest follow in
// random order.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_POWER_OF_TWO_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_POWER_OF_TWO_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <string_view>
#include <vector>

#include "services/router/policy.h"

namespace caravan::router {

class PowerOfTwoPolicy final : public Policy {
 public:
  explicit PowerOfTwoPolicy(uint64_t seed) : random_(seed) {}

  std::string_view name() const override { return "power_of_two"; }
  std::vector<size_t> Rank(const PlacementQuery& query,
                           const CandidateTable& candidates,
                           size_t most) override;

 private:
  std::mt19937_64 random_;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_POWER_OF_TWO_H_
