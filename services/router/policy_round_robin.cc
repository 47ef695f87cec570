#include "services/router/policy_round_robin.h"

#include "services/router/policy_ranking.h"

namespace caravan::router {

std::vector<size_t> RoundRobinPolicy::Rank(const PlacementQuery& query,
                                           const CandidateTable& candidates,
                                           size_t most) {
  return RankByScore(candidates, turn_++, most, [](size_t) { return 0; });
}

}  // namespace caravan::router
