#include "services/router/policy_cost.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "common/kv/block_hash.h"
#include "services/router/policy_ranking.h"

namespace caravan::router {
namespace {

// A block that does not fit makes somebody recompute it, and wait.
constexpr float kPressureWeight = 4;
// A sequence that waits for a place in the running set waits for another to
// end: about what a prompt of 512 tokens costs.
constexpr float kQueueBlocks = 32;
// Reading a block of context in a step against computing it, times the steps
// that a prefill lasts; it mostly tells equals apart.
constexpr float kDecodeWeight = 0.02f;
// Of L squared: tuned on the six traces of tests/simulation (policies.md).
constexpr float kLoadWeight = 0.5f;
constexpr float kLowPriorityWeight = 2;
// More requests than this a replica count as so many.
constexpr float kMostRequests = 64;
// Replicas whose speeds differ by more than this are taken as this different.
constexpr float kMaxSlowdown = 16;
// Weight of the newest placement in the mean work.
constexpr float kNewest = 0.02f;
constexpr float kBlocksPerToken = 1.0f / kv::kBlockTokens;

// Prefill speed of the fastest, in tokens per second; 0 where none is known.
float FastestSpeed(const std::vector<float>& seconds_per_token) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  float least = kInfinity;
  for (const float seconds : seconds_per_token) {
    least = std::min(least, seconds > 0 ? seconds : kInfinity);
  }
  return 1 / least;
}

// Prefill that waits at an available replica, on average. In lanes: one sum
// would wait for each of its additions.
float MeanQueuedTokens(const CandidateColumns& columns) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> tokens = {};
  std::array<float, kLanes> available = {};
  const size_t size = columns.away.size();
  const float* const away = columns.away.data();
  const float* const queued = columns.queued_tokens.data();
  const auto add = [&](size_t i, size_t lane) {
    const float counts = away[i] > 0 ? 0.0f : 1.0f;
    tokens[lane] += counts * queued[i];
    available[lane] += counts;
  };
  size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  }
  for (; i < size; ++i) add(i, 0);
  const float sum = std::accumulate(tokens.begin(), tokens.end(), 0.0f);
  return sum /
         std::max(std::accumulate(available.begin(), available.end(), 0.0f),
                  1.0f);
}

}  // namespace

float CostPolicy::WorkWeight(const PlacementQuery& query,
                             const CandidateColumns& columns) const {
  if (query.priority > 0) return 1;
  const float requests =
      std::min(MeanQueuedTokens(columns) / mean_work_tokens_, kMostRequests);
  const float patience = query.priority < 0 ? kLowPriorityWeight : 1;
  return 1 + kLoadWeight * patience * requests * requests;
}

void CostPolicy::FillCosts(const PlacementQuery& query,
                           const CandidateTable& candidates) {
  const CandidateColumns& c = candidates.columns();
  const float fastest = FastestSpeed(c.seconds_per_token);
  const float work_weight = WorkWeight(query, c);
  const float prompt_blocks =
      static_cast<float>(query.prompt_tokens) * kBlocksPerToken;
  const float own_blocks =
      prompt_blocks +
      static_cast<float>(query.expected_output_tokens) * kBlocksPerToken;
  costs_.resize(candidates.size());
  for (size_t i = 0; i < costs_.size(); ++i) {
    const float work =
        std::max(prompt_blocks - c.matched_blocks[i], kBlocksPerToken);
    const float wait = c.queued_tokens[i] * kBlocksPerToken;
    const float slowdown = std::max(
        std::min(c.seconds_per_token[i] * fastest, kMaxSlowdown), 1.0f);
    // Matched blocks may be leased already: they cost no room.
    const float shortage = std::max(c.leased_blocks[i] + own_blocks -
                                        c.matched_blocks[i] - c.block_count[i],
                                    0.0f);
    const float waiting = std::max(1 - c.free_places[i], 0.0f);
    costs_[i] = (wait + work_weight * work) * slowdown +
                kDecodeWeight * c.leased_blocks[i] +
                kPressureWeight * shortage + kQueueBlocks * waiting + c.away[i];
  }
}

void CostPolicy::NoteWork(const PlacementQuery& query,
                          const Candidate& chosen) {
  const float work = static_cast<float>(query.prompt_tokens) -
                     static_cast<float>(chosen.matched_blocks) *
                         static_cast<float>(chosen.block_size);
  mean_work_tokens_ +=
      kNewest * (std::max(work, float{kv::kBlockTokens}) - mean_work_tokens_);
}

std::vector<size_t> CostPolicy::Rank(const PlacementQuery& query,
                                     const CandidateTable& candidates,
                                     size_t most) {
  FillCosts(query, candidates);
  const std::vector<size_t> order = LeastOf(costs_, turns_.Next(), most);
  if (!order.empty()) NoteWork(query, candidates[order.front()]);
  return order;
}

}  // namespace caravan::router
