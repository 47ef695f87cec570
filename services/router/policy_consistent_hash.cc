#include "services/router/policy_consistent_hash.h"

#include <xxhash.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "common/strings.h"
#include "services/router/policy_ranking.h"

namespace caravan::router {
namespace {

constexpr double kMaxShare = 1.25;  // of the mean number of sequences

uint64_t Weight(std::string_view key, std::string_view worker_id) {
  const std::string text = StrCat(key.size(), ":", key, worker_id);
  return XXH3_64bits(text.data(), text.size());
}

// Most sequences that a replica may have and still be first.
double FairShare(const CandidateTable& candidates) {
  double sequences = 1;  // the new one
  double available = 0;
  for (const Candidate& candidate : candidates.rows()) {
    if (!candidate.available) continue;
    sequences += static_cast<double>(candidate.sequence_count());
    available += 1;
  }
  return kMaxShare * sequences / std::max(available, 1.0);
}

}  // namespace

std::vector<size_t> ConsistentHashPolicy::Rank(const PlacementQuery& query,
                                               const CandidateTable& candidates,
                                               size_t most) {
  const double share = FairShare(candidates);
  return RankByScore(candidates, /*turn=*/0, most, [&](size_t i) {
    const Candidate& candidate = candidates[i];
    const bool over = static_cast<double>(candidate.sequence_count()) > share;
    // Greatest weight first.
    return std::pair(over, ~Weight(query.affinity_key, candidate.worker_id));
  });
}

}  // namespace caravan::router
