#include "services/router/policy_overlap_cost.h"

#include <algorithm>

#include "services/router/policy_ranking.h"

namespace caravan::router {

std::vector<size_t> OverlapCostPolicy::Rank(const PlacementQuery& query,
                                            const CandidateTable& candidates,
                                            size_t most) {
  return RankByScore(candidates, turns_.Next(), most, [&](size_t i) {
    const Candidate& c = candidates[i];
    const double block_size = c.block_size;
    const double active_prefill =
        (static_cast<double>(c.load.queued_prefill_tokens) +
         static_cast<double>(c.credit.prefill_tokens)) /
        block_size;
    const double incoming = query.prompt_tokens / block_size;
    const double prefill =
        std::max(active_prefill + incoming - c.matched_blocks, 0.0);
    const double decode = static_cast<double>(c.load.leased_blocks) +
                          static_cast<double>(c.credit.blocks);
    return options_.prefill_scale * prefill + decode + incoming;
  });
}

}  // namespace caravan::router
