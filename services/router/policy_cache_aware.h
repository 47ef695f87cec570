// A published policy, for comparison (the SGLang model gateway's cache-aware
// routing, event-driven form): while the queues are balanced, the greatest
// overlap, ties to the lower load; once they are not, the shortest queue.
// Unbalanced is (greatest - least) > absolute threshold and
// greatest > relative threshold * least.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_CACHE_AWARE_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_CACHE_AWARE_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "services/router/policy.h"
#include "services/router/policy_turns.h"

namespace caravan::router {

struct CacheAwareOptions {
  double absolute_threshold = 32;   // sequences
  double relative_threshold = 1.1;  // times the least loaded
};

class CacheAwarePolicy final : public Policy {
 public:
  explicit CacheAwarePolicy(uint64_t seed,
                            const CacheAwareOptions& options = {})
      : options_(options), turns_(seed) {}

  std::string_view name() const override { return "cache_aware"; }
  std::vector<size_t> Rank(const PlacementQuery& query,
                           const CandidateTable& candidates,
                           size_t most) override;

 private:
  bool IsUnbalanced(const CandidateTable& candidates) const;

  const CacheAwareOptions options_;
  PolicyTurns turns_;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_CACHE_AWARE_H_
