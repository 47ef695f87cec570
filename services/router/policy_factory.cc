#include "services/router/policy_factory.h"

#include <string>

#include "common/status/errors.h"
#include "common/strings.h"
#include "services/router/policy_cache_aware.h"
#include "services/router/policy_consistent_hash.h"
#include "services/router/policy_cost.h"
#include "services/router/policy_least_load.h"
#include "services/router/policy_overlap_cost.h"
#include "services/router/policy_power_of_two.h"
#include "services/router/policy_round_robin.h"

namespace caravan::router {

const std::vector<std::string_view>& PolicyNames() {
  static const auto* const names = new std::vector<std::string_view>{
      "cost",         "round_robin",     "least_load",
      "power_of_two", "consistent_hash", "cache_aware",
      "overlap_cost"};
  return *names;
}

absl::StatusOr<std::unique_ptr<Policy>> MakePolicy(std::string_view name,
                                                   uint64_t seed) {
  if (name == "cost") return std::make_unique<CostPolicy>(seed);
  if (name == "round_robin") return std::make_unique<RoundRobinPolicy>(seed);
  if (name == "least_load") return std::make_unique<LeastLoadPolicy>(seed);
  if (name == "power_of_two") return std::make_unique<PowerOfTwoPolicy>(seed);
  if (name == "consistent_hash") {
    return std::make_unique<ConsistentHashPolicy>();
  }
  if (name == "cache_aware") return std::make_unique<CacheAwarePolicy>(seed);
  if (name == "overlap_cost") return std::make_unique<OverlapCostPolicy>(seed);
  std::string known;
  for (const std::string_view one : PolicyNames()) {
    StrAppend(&known, known.empty() ? "" : ", ", one);
  }
  return FieldError("--policy", StrCat("one of ", known), name);
}

}  // namespace caravan::router
