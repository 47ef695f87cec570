// The replica with the fewest sequences, placed ones included; ties are
// drawn.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_LEAST_LOAD_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_LEAST_LOAD_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "services/router/policy.h"
#include "services/router/policy_turns.h"

namespace caravan::router {

class LeastLoadPolicy final : public Policy {
 public:
  explicit LeastLoadPolicy(uint64_t seed) : turns_(seed) {}

  std::string_view name() const override { return "least_load"; }
  std::vector<size_t> Rank(const PlacementQuery& query,
                           const CandidateTable& candidates,
                           size_t most) override;

 private:
  PolicyTurns turns_;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_LEAST_LOAD_H_
