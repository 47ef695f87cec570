// The router, as the CLI uses it.
#ifndef CARAVAN_SERVICES_CLI_ROUTER_CLIENT_H_
#define CARAVAN_SERVICES_CLI_ROUTER_CLIENT_H_

#include <string>

#include "absl/status/statusor.h"
#include "caravan/v1/router.pb.h"
#include "services/cli/client_options.h"

namespace caravan::cli {

// The fleet as the router sees it; empty model: all. Blocks.
absl::StatusOr<v1::ListWorkersResponse> ListWorkers(
    const ClientOptions& options, const std::string& model);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_ROUTER_CLIENT_H_
