// Flags of caravan-router.
#ifndef CARAVAN_SERVICES_ROUTER_OPTIONS_H_
#define CARAVAN_SERVICES_ROUTER_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/grpc/service_options.h"
#include "services/router/block_index.h"

namespace caravan::router {

struct RouterOptions : ServiceOptions {
  RouterOptions() { metrics_port = 9481; }

  // Parameters that affect behavior.

  int port = 8090;  // --port: gRPC; 0: any free port

  // Parameters that affect performance.

  std::string policy = "cost";  // --policy: see policy_factory.h
  uint64_t policy_seed = 0;     // --policy-seed: 0 draws one
  // --max-indexed-blocks: entries of the prefix index, about 20 bytes each.
  int64_t max_indexed_blocks = BlockIndex::kDefaultMaxEntries;

  // Errors: kInvalidField naming the flag.
  absl::Status Validate() const;
};

// Nothing when help was asked for, and printed. Errors: kInvalidField.
absl::StatusOr<std::optional<RouterOptions>> ParseRouterOptions(
    int argc, const char* const* argv);

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_OPTIONS_H_
