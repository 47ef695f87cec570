// What the processes of the suite have in common on their command lines, and
// how they begin and end.
#ifndef CARAVAN_COMMON_GRPC_SERVICE_OPTIONS_H_
#define CARAVAN_COMMON_GRPC_SERVICE_OPTIONS_H_

#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/grpc/server.h"
#include "common/log.h"
#include "common/strings.h"

namespace CLI {
class App;
}  // namespace CLI

namespace caravan {

// Base of each process's options.
struct ServiceOptions {
  std::string listen = "127.0.0.1";  // --listen: address of all ports
  int metrics_port = 0;              // --metrics-port; 0: any free port
  std::string tls_certificate_file;  // --tls-cert: PEM; empty: no TLS
  std::string tls_key_file;          // --tls-key: PEM, with --tls-cert
  std::string tls_ca_file;           // --tls-ca: peers must show one of its
  double grace_s = 30;               // --grace: for running calls at the end
  std::string log_level = "info";    // --log-level: debug, info, warning, error
};

// Adds the flags above.
void AddServiceFlags(CLI::App& app, ServiceOptions& options);

// Error: kInvalidField naming the flag.
absl::Status ValidateServiceOptions(const ServiceOptions& options);

// kInvalidField: "FLAG must be in [LEAST, MOST]; got VALUE".
absl::Status CheckFlagRange(std::string_view flag, double value, double least,
                            double most);

// Fills what the app's flags are bound to. False when help was asked for, and
// printed. Error: kInvalidField.
absl::StatusOr<bool> ParseFlags(CLI::App& app, int argc,
                                const char* const* argv);

// For GrpcServer::Start.
ServerOptions ToServerOptions(const ServiceOptions& options, int port);

// The rest of a main function: starts the log, runs `serve(options)` until it
// returns, and gives the exit code. `options` is what the process's parser
// gave; nothing in it: help was printed.
template <typename Options, typename Serve>
int RunService(std::string_view process,
               const absl::StatusOr<std::optional<Options>>& options,
               Serve serve) {
  if (!options.ok()) {
    std::cerr << options.status().message() << '\n';
    return EXIT_FAILURE;
  }
  if (!options->has_value()) return EXIT_SUCCESS;
  InitLog(std::string(process), (*options)->log_level);
  const absl::Status status = serve(**options);
  if (status.ok()) return EXIT_SUCCESS;
  LogError(StrCat(process, "_failed"), {{"status", status}});
  return EXIT_FAILURE;
}

}  // namespace caravan

#endif  // CARAVAN_COMMON_GRPC_SERVICE_OPTIONS_H_
