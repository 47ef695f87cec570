#include "common/grpc/service_options.h"

#include <CLI/CLI.hpp>

#include "common/status/errors.h"
#include "common/status/status_macros.h"

namespace caravan {

void AddServiceFlags(CLI::App& app, ServiceOptions& options) {
  app.option_defaults()->always_capture_default();
  app.add_option("--listen", options.listen, "address to bind");
  app.add_option("--metrics-port", options.metrics_port,
                 "port of GET /metrics; 0: any free one");
  app.add_option("--tls-cert", options.tls_certificate_file,
                 "certificate for gRPC, PEM");
  app.add_option("--tls-key", options.tls_key_file, "its key, PEM");
  app.add_option("--tls-ca", options.tls_ca_file,
                 "authority of peers' certificates, PEM");
  app.add_option("--grace", options.grace_s,
                 "seconds for what runs at the end");
  app.add_option("--log-level", options.log_level,
                 "debug, info, warning or error");
}

absl::Status ValidateServiceOptions(const ServiceOptions& options) {
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--metrics-port", options.metrics_port, 0, 65535));
  CARAVAN_RETURN_IF_ERROR(CheckFlagRange("--grace", options.grace_s, 0, 86400));
  for (const std::string_view level : {"debug", "info", "warning", "error"}) {
    if (options.log_level == level) return absl::OkStatus();
  }
  return FieldError("--log-level", "debug, info, warning or error",
                    options.log_level);
}

absl::Status CheckFlagRange(std::string_view flag, double value, double least,
                            double most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return FieldError(flag, StrCat("in [", least, ", ", most, "]"),
                    StrCat(value));
}

absl::StatusOr<bool> ParseFlags(CLI::App& app, int argc,
                                const char* const* argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::cout << app.help();
    return false;
  } catch (const CLI::ParseError& error) {
    return MakeError(Reason::kInvalidField, error.what());
  }
  return true;
}

ServerOptions ToServerOptions(const ServiceOptions& options, int port) {
  ServerOptions server;
  server.listen = options.listen;
  server.port = port;
  server.tls = {options.tls_certificate_file, options.tls_key_file,
                options.tls_ca_file};
  return server;
}

}  // namespace caravan
