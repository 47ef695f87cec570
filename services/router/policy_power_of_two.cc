#include "services/router/policy_power_of_two.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace caravan::router {

std::vector<size_t> PowerOfTwoPolicy::Rank(
    const PlacementQuery& query, std::span<const Candidate> candidates) {
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::shuffle(order.begin(), order.end(), random_);
  if (order.size() >= 2 && candidates[order[1]].sequence_count() <
                               candidates[order[0]].sequence_count()) {
    std::swap(order[0], order[1]);
  }
  return order;
}

}  // namespace caravan::router
