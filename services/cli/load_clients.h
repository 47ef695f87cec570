// How a load test reaches the gateway: by gRPC or by HTTP.
#ifndef CARAVAN_SERVICES_CLI_LOAD_CLIENTS_H_
#define CARAVAN_SERVICES_CLI_LOAD_CLIENTS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/cli/client_options.h"
#include "services/cli/http_session.h"
#include "services/cli/load_runner.h"

namespace caravan::cli {

// What every request of the load has in common.
struct LoadClientOptions {
  std::string model;
  float temperature = 1;
};

// Streams over `channels` connections, in turn.
absl::StatusOr<std::unique_ptr<LoadClient>> MakeGrpcLoadClient(
    const ClientOptions& client, const LoadClientOptions& load, int channels);

// Each running request has a connection of its own, kept for the next. The
// client has one thread, ended by its destruction.
std::unique_ptr<LoadClient> MakeHttpLoadClient(const HttpTarget& target,
                                               const LoadClientOptions& load);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_LOAD_CLIENTS_H_
