// The choosing that policies share.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_RANKING_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_RANKING_H_

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "services/router/policy.h"

namespace caravan::router {

// Indices of the available candidates, in order.
inline std::vector<size_t> AvailableOf(const CandidateTable& candidates) {
  std::vector<size_t> indices;
  indices.reserve(candidates.size());
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].available) indices.push_back(i);
  }
  return indices;
}

// The `most` least of what it was offered, ascending; earlier ones first where
// equal.
template <typename Value>
class LeastList {
 public:
  explicit LeastList(size_t most) : most_(most) { best_.reserve(most + 1); }

  void Offer(const Value& value, size_t index) {
    if (best_.size() == most_ && !(value < best_.back().first)) return;
    const auto less = [](const Value& v, const auto& entry) {
      return v < entry.first;
    };
    best_.insert(std::upper_bound(best_.begin(), best_.end(), value, less),
                 {value, index});
    if (best_.size() > most_) best_.pop_back();
  }

  // What a value must be below to get in; the greatest while there is room.
  Value bound() const {
    return best_.size() < most_ ? std::numeric_limits<Value>::infinity()
                                : best_.back().first;
  }

  std::vector<size_t> Indices() const {
    std::vector<size_t> indices;
    indices.reserve(best_.size());
    for (const auto& [value, index] : best_) indices.push_back(index);
    return indices;
  }

 private:
  const size_t most_;
  std::vector<std::pair<Value, size_t>> best_;
};

// The `most` available candidates with the least score(index), ascending.
// Equal ones are rotated by `turn`, so that none of them is always first.
template <typename Score>
std::vector<size_t> RankByScore(const CandidateTable& candidates, size_t turn,
                                size_t most, Score score) {
  const std::vector<size_t> order = AvailableOf(candidates);
  most = std::min(most, order.size());
  if (most == 0) return {};
  const size_t first = turn % order.size();
  LeastList<decltype(score(size_t{0}))> least(most);
  for (size_t k = first; k < order.size(); ++k) {
    least.Offer(score(order[k]), order[k]);
  }
  for (size_t k = 0; k < first; ++k) least.Offer(score(order[k]), order[k]);
  return least.Indices();
}

// The same for costs that are there already; infinite ones are not ranked.
inline std::vector<size_t> LeastOf(std::span<const float> costs, size_t turn,
                                   size_t most) {
  most = std::min(most, costs.size());
  if (most == 0) return {};
  const size_t first = turn % costs.size();
  LeastList<float> least(most);
  float bound = std::numeric_limits<float>::infinity();
  const auto offer = [&](size_t i) {
    if (!(costs[i] < bound)) return;
    least.Offer(costs[i], i);
    bound = least.bound();
  };
  for (size_t i = first; i < costs.size(); ++i) offer(i);
  for (size_t i = 0; i < first; ++i) offer(i);
  return least.Indices();
}

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_RANKING_H_
