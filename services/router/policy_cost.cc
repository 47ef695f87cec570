#include "services/router/policy_cost.h"

#include <algorithm>
#include <limits>

#include "common/kv/block_hash.h"
#include "services/router/policy_ranking.h"

namespace caravan::router {
namespace {

// A block that does not fit makes somebody recompute it, and wait.
constexpr float kPressureWeight = 4;
// A sequence that waits for a place in the running set waits for another to
// end: about what a prompt of 1,024 tokens costs.
constexpr float kQueueBlocks = 64;
// Replicas whose speeds differ by more than this are taken as this different.
constexpr float kMaxSlowdown = 16;
constexpr float kBlocksPerToken = 1.0f / kv::kBlockTokens;

// Prefill speed of the fastest, in tokens per second; 0 where none is known.
float FastestSpeed(const std::vector<float>& seconds_per_token) {
  float least = std::numeric_limits<float>::infinity();
  for (const float seconds : seconds_per_token) {
    least = std::min(
        least, seconds > 0 ? seconds : std::numeric_limits<float>::infinity());
  }
  return 1 / least;
}

}  // namespace

void CostPolicy::FillCosts(const PlacementQuery& query,
                           const CandidateTable& candidates) {
  const CandidateColumns& c = candidates.columns();
  const float fastest = FastestSpeed(c.seconds_per_token);
  const float prompt = static_cast<float>(query.prompt_tokens);
  const float prompt_blocks = prompt * kBlocksPerToken;
  const float own_blocks =
      prompt_blocks +
      static_cast<float>(query.expected_output_tokens) * kBlocksPerToken;
  costs_.resize(candidates.size());
  for (size_t i = 0; i < costs_.size(); ++i) {
    const float uncached =
        std::max(prompt_blocks - c.matched_blocks[i], kBlocksPerToken);
    const float prefill = uncached + c.queued_tokens[i] * kBlocksPerToken;
    const float slowdown = std::max(
        std::min(c.seconds_per_token[i] * fastest, kMaxSlowdown), 1.0f);
    // Matched blocks may be leased already: they cost no room.
    const float shortage = std::max(c.leased_blocks[i] + own_blocks -
                                        c.matched_blocks[i] - c.block_count[i],
                                    0.0f);
    const float waiting = std::max(1 - c.free_places[i], c.waiting[i]);
    costs_[i] = prefill * slowdown + c.leased_blocks[i] +
                kPressureWeight * shortage + kQueueBlocks * waiting + c.away[i];
  }
}

std::vector<size_t> CostPolicy::Rank(const PlacementQuery& query,
                                     const CandidateTable& candidates,
                                     size_t most) {
  FillCosts(query, candidates);
  return LeastOf(costs_, turn_++, most);
}

}  // namespace caravan::router
