// Policies by name.
#ifndef CARAVAN_SERVICES_ROUTER_POLICY_FACTORY_H_
#define CARAVAN_SERVICES_ROUTER_POLICY_FACTORY_H_

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/router/policy.h"

namespace caravan::router {

// The values of --policy.
const std::vector<std::string_view>& PolicyNames();

// Errors: kInvalidField listing the names. `seed` is for policies that draw.
absl::StatusOr<std::unique_ptr<Policy>> MakePolicy(std::string_view name,
                                                   uint64_t seed);

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_POLICY_FACTORY_H_
