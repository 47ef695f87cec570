#include "services/router/policy_cache_aware.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <tuple>

#include "services/router/policy_ranking.h"

namespace caravan::router {

bool CacheAwarePolicy::IsUnbalanced(const CandidateTable& candidates) const {
  int64_t least = std::numeric_limits<int64_t>::max();
  int64_t greatest = 0;
  for (const Candidate& candidate : candidates.rows()) {
    if (!candidate.available) continue;
    least = std::min(least, candidate.sequence_count());
    greatest = std::max(greatest, candidate.sequence_count());
  }
  const auto high = static_cast<double>(greatest);
  const auto low = static_cast<double>(least);
  return high - low > options_.absolute_threshold &&
         high > options_.relative_threshold * low;
}

std::vector<size_t> CacheAwarePolicy::Rank(const PlacementQuery& query,
                                           const CandidateTable& candidates,
                                           size_t most) {
  const bool unbalanced = IsUnbalanced(candidates);
  return RankByScore(candidates, turns_.Next(), most, [&](size_t i) {
    const Candidate& c = candidates[i];
    // Last, the smaller cache.
    return std::tuple(unbalanced ? 0 : -c.matched_blocks, c.sequence_count(),
                      c.load.cached_blocks);
  });
}

}  // namespace caravan::router
