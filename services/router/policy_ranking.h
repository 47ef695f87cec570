// The choosing that policies share.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_RANKING_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_RANKING_H_

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "services/router/policy.h"

namespace caravan::router {

// Indices of the available candidates, in order.
inline std::vector<size_t> AvailableOf(std::span<const Candidate> candidates) {
  std::vector<size_t> indices;
  indices.reserve(candidates.size());
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].available) indices.push_back(i);
  }
  return indices;
}

// The `most` available candidates with the least score(index), ascending.
// Equal ones come in turn: they are rotated by `turn`, so that none of them is
// always first.
template <typename Score>
std::vector<size_t> RankByScore(std::span<const Candidate> candidates,
                                size_t turn, size_t most, Score score) {
  using Value = decltype(score(size_t{0}));
  const std::vector<size_t> order = AvailableOf(candidates);
  most = std::min(most, order.size());
  std::vector<size_t> ranked;
  if (most == 0) return ranked;
  const size_t first = turn % order.size();
  std::vector<std::pair<Value, size_t>> best;
  best.reserve(most + 1);
  const auto less = [](const Value& value, const auto& entry) {
    return value < entry.first;
  };
  const auto consider = [&](size_t i) {
    const Value value = score(i);
    if (best.size() == most && !(value < best.back().first)) return;
    best.insert(std::upper_bound(best.begin(), best.end(), value, less),
                {value, i});
    if (best.size() > most) best.pop_back();
  };
  for (size_t k = first; k < order.size(); ++k) consider(order[k]);
  for (size_t k = 0; k < first; ++k) consider(order[k]);
  for (const auto& [value, i] : best) ranked.push_back(i);
  return ranked;
}

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_RANKING_H_
