#include "services/router/policy_least_load.h"

#include "services/router/policy_ranking.h"

namespace caravan::router {

std::vector<size_t> LeastLoadPolicy::Rank(const PlacementQuery& query,
                                          const CandidateTable& candidates,
                                          size_t most) {
  return RankByScore(candidates, turns_.Next(), most,
                     [&](size_t i) { return candidates[i].sequence_count(); });
}

}  // namespace caravan::router
