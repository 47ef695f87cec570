#include "services/router/policy_cost.h"

#include <algorithm>
#include <cstdint>

#include "services/router/policy_ranking.h"

namespace caravan::router {
namespace {

// A block that does not fit makes somebody recompute it, and wait.
constexpr double kPressureWeight = 4;
// A sequence that waits for a place in the running set waits for another to
// end: about what a prompt of 1,024 tokens costs.
constexpr double kQueueBlocks = 64;
// Replicas whose speeds differ by more than this are taken as this different.
constexpr double kMaxSlowdown = 16;

// How many times slower than the fastest candidate; 1 where not known.
double Slowdown(const Candidate& candidate, double fastest) {
  const double speed = candidate.load.prefill_tokens_per_second;
  if (!(speed > 0) || !(fastest > speed)) return 1;
  return std::min(fastest / speed, kMaxSlowdown);
}

// All in double: what replicas and clients tell may be any number.
double Cost(const PlacementQuery& query, const Candidate& c, double fastest) {
  const double blocks_per_token = 1.0 / c.block_size;
  const double prompt_blocks = query.prompt_tokens * blocks_per_token;
  const double uncached_blocks =
      std::max(prompt_blocks - c.matched_blocks, blocks_per_token);
  const double queued_tokens =
      static_cast<double>(c.load.queued_prefill_tokens) +
      static_cast<double>(c.credit.prefill_tokens);
  const double prefill_blocks =
      uncached_blocks + queued_tokens * blocks_per_token;

  const double own_blocks =
      prompt_blocks + query.expected_output_tokens * blocks_per_token;
  const double leased_blocks = static_cast<double>(c.load.leased_blocks) +
                               static_cast<double>(c.credit.blocks);
  // Matched blocks may be leased already: they cost no room.
  const double needed_blocks = own_blocks - c.matched_blocks;
  const double shortage =
      std::max(leased_blocks + needed_blocks - c.block_count, 0.0);

  const double waiting = static_cast<double>(std::max<int64_t>(
      c.sequence_count() + 1 - c.max_running_count, c.load.waiting_count));
  return prefill_blocks * Slowdown(c, fastest) + leased_blocks + own_blocks +
         kPressureWeight * shortage + kQueueBlocks * waiting;
}

}  // namespace

std::vector<size_t> CostPolicy::Rank(const PlacementQuery& query,
                                     std::span<const Candidate> candidates,
                                     size_t most) {
  double fastest = 0;
  for (const Candidate& candidate : candidates) {
    fastest =
        std::max<double>(fastest, candidate.load.prefill_tokens_per_second);
  }
  return RankByScore(candidates, turn_++, most, [&](size_t i) {
    return Cost(query, candidates[i], fastest);
  });
}

}  // namespace caravan::router
