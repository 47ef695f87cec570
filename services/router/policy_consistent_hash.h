// Requests with one affinity key go to one replica, and when replicas come or
// go only the keys of those move (rendezvous hashing). A replica that has
// more than its share of sequences, 1.25 times the mean, stands back.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_CONSISTENT_HASH_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_CONSISTENT_HASH_H_

#include <cstddef>
#include <string_view>
#include <vector>

#include "services/router/policy.h"

namespace caravan::router {

class ConsistentHashPolicy final : public Policy {
 public:
  std::string_view name() const override { return "consistent_hash"; }
  std::vector<size_t> Rank(const PlacementQuery& query,
                           const CandidateTable& candidates,
                           size_t most) override;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_CONSISTENT_HASH_H_
