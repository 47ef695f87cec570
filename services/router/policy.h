// How the router orders the replicas that could serve a request.
//
// To add a policy: policy_<name>.{h,cc} with one class, a line in
// policy_factory.cc, and its name in the contract test.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "services/router/replica.h"

namespace caravan::router {

// A request that wants a place.
struct PlacementQuery {
  int32_t prompt_tokens = 0;
  int32_t expected_output_tokens = 0;  // all choices together
  // Requests with equal keys belong together; the client's key, else the
  // prompt's beginning.
  std::string affinity_key;
};

// A replica that could serve it.
struct Candidate {
  std::string_view worker_id;
  ReplicaLoad load;
  Credit credit;  // placed, not yet in the load
  int32_t block_size = 16;
  int32_t block_count = 0;
  int32_t max_running_count = 0;
  int32_t matched_blocks = 0;
  bool available = true;  // others are not ranked

  // Sequences that it has or is about to get.
  int64_t sequence_count() const {
    return int64_t{load.running_count} + load.waiting_count + credit.sequences;
  }
};

// Not thread-safe.
class Policy {
 public:
  virtual ~Policy() = default;

  // As in --policy and in metrics.
  virtual std::string_view name() const = 0;

  // Indices of the best `most` available candidates, best first, each once.
  virtual std::vector<size_t> Rank(const PlacementQuery& query,
                                   std::span<const Candidate> candidates,
                                   size_t most) = 0;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_H_
