#include "services/router/policy_power_of_two.h"

#include <algorithm>
#include <utility>

#include "services/router/policy_ranking.h"

namespace caravan::router {

std::vector<size_t> PowerOfTwoPolicy::Rank(const PlacementQuery& query,
                                           const CandidateTable& candidates,
                                           size_t most) {
  std::vector<size_t> order = AvailableOf(candidates);
  // As many as are wanted, and two to choose from, in random order.
  const size_t drawn = std::min(order.size(), std::max<size_t>(most, 2));
  for (size_t i = 0; i < drawn; ++i) {
    std::uniform_int_distribution<size_t> draw(i, order.size() - 1);
    std::swap(order[i], order[draw(random_)]);
  }
  if (drawn >= 2 && candidates[order[1]].sequence_count() <
                        candidates[order[0]].sequence_count()) {
    std::swap(order[0], order[1]);
  }
  order.resize(std::min(order.size(), most));
  return order;
}

}  // namespace caravan::router
