// How the router orders the replicas that could serve a request.
//
// To add a policy: policy_<name>.{h,cc} with one class, a line in
// policy_factory.cc, and its name in the contract test.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "services/router/candidate_table.h"

namespace caravan::router {

// A request that wants a place.
struct PlacementQuery {
  int32_t prompt_tokens = 0;
  int32_t expected_output_tokens = 0;  // all choices together
  int32_t priority = 0;                // higher is more urgent
  // Requests with equal keys belong together; the client's key, else the
  // prompt's beginning.
  std::string affinity_key;
};

// Not thread-safe.
class Policy {
 public:
  virtual ~Policy() = default;

  // As in --policy and in metrics.
  virtual std::string_view name() const = 0;

  // Indices of the best `most` available candidates, best first, each once.
  virtual std::vector<size_t> Rank(const PlacementQuery& query,
                                   const CandidateTable& candidates,
                                   size_t most) = 0;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_H_
