// The sorting that policies share.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_RANKING_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_RANKING_H_

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

namespace caravan::router {

// Indices [0, count) by ascending score(index). Equal ones come in turn: they
// are rotated by `turn`, so that none of them is always first.
template <typename Score>
std::vector<size_t> RankByScore(size_t count, size_t turn, Score score) {
  using Value = decltype(score(size_t{0}));
  std::vector<Value> scores;
  scores.reserve(count);
  for (size_t i = 0; i < count; ++i) scores.push_back(score(i));
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  if (count > 0) {
    std::rotate(order.begin(), order.begin() + turn % count, order.end());
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  return order;
}

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_RANKING_H_
