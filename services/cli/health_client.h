// Health of a process of the suite.
#ifndef CARAVAN_SERVICES_CLI_HEALTH_CLIENT_H_
#define CARAVAN_SERVICES_CLI_HEALTH_CLIENT_H_

#include <string>

#include "absl/status/statusor.h"
#include "services/cli/client_options.h"

namespace caravan::cli {

// "SERVING", "NOT_SERVING" or "UNKNOWN", as grpc.health.v1 answers for the
// whole server. Blocks.
absl::StatusOr<std::string> CheckHealth(const ClientOptions& options);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_HEALTH_CLIENT_H_
