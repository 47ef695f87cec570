#include "gateway/options.h"

#include <CLI/CLI.hpp>
#include <string_view>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::gateway {
namespace {

absl::Status CheckAddresses(std::string_view flag,
                            const std::vector<std::string>& addresses) {
  if (addresses.empty())
    return FieldError(flag, "at least one address", "none");
  for (const std::string& address : addresses) {
    if (address.find(':') == std::string::npos) {
      return FieldError(flag, "HOST:PORT[,HOST:PORT...]", address);
    }
  }
  return absl::OkStatus();
}

void AddAddressFlags(CLI::App& app, GatewayOptions& options) {
  app.add_option("--http-port", options.http_port,
                 "HTTP port; 0: any free one");
  app.add_option("--grpc-port", options.grpc_port,
                 "gRPC port; 0: any free one");
  app.add_option("--router", options.routers, "HOST:PORT of routers")
      ->delimiter(',');
  app.add_option("--tokenizer", options.tokenizers, "HOST:PORT of tokenizers")
      ->delimiter(',');
  app.add_option("--api-keys", options.api_keys_file,
                 "file of KEY TENANT [WEIGHT] lines, or a JSON array");
}

void AddTimeFlags(CLI::App& app, GatewayOptions& options) {
  app.add_option("--request-timeout", options.request_timeout_s,
                 "longest seconds of an HTTP request; 0: no limit");
  app.add_option("--start-patience", options.start_patience_s,
                 "seconds that a request waits for a tokenizer or router");
  app.add_option("--resume-patience", options.resume_patience_s,
                 "seconds that a stream waits for a replica to go on");
  app.add_option("--body-timeout", options.body_timeout_s,
                 "seconds for a request body, and more for a long one");
  app.add_option("--write-timeout", options.write_timeout_s,
                 "seconds that a client may take to read one message");
}

void AddIdempotencyFlags(CLI::App& app, GatewayOptions& options) {
  app.add_option("--idempotency-window", options.idempotency_window_s,
                 "seconds after its end for which a stream with an idempotency "
                 "key can be attached to");
  app.add_option("--idempotency-linger", options.idempotency_linger_s,
                 "seconds for which a stream with a key runs unread");
  app.add_option("--idempotency-bytes", options.idempotency_bytes,
                 "bytes of streams with a key that have ended");
}

void AddLimitFlags(CLI::App& app, GatewayOptions& options) {
  app.add_option("--max-queued", options.max_queued, "requests that wait");
  app.add_option("--max-starting", options.max_starting,
                 "requests at workers without a token yet");
  app.add_option("--max-body-bytes", options.max_body_bytes,
                 "bytes of an HTTP body");
  app.add_option("--max-header-bytes", options.max_header_bytes,
                 "bytes of an HTTP header");
  app.add_option("--max-connections", options.max_connections,
                 "open HTTP connections");
  app.add_option("--max-backlog-tokens", options.max_backlog_tokens,
                 "tokens that wait for a client that does not read");
  app.add_option("--threads", options.threads,
                 "threads for requests; 0: half the cores, 1 to 8");
}

}  // namespace

absl::Status GatewayOptions::Validate() const {
  CARAVAN_RETURN_IF_ERROR(CheckFlagRange("--http-port", http_port, 0, 65535));
  CARAVAN_RETURN_IF_ERROR(CheckFlagRange("--grpc-port", grpc_port, 0, 65535));
  CARAVAN_RETURN_IF_ERROR(CheckAddresses("--router", routers));
  CARAVAN_RETURN_IF_ERROR(CheckAddresses("--tokenizer", tokenizers));
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--request-timeout", request_timeout_s, 0, 86400));
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--start-patience", start_patience_s, 0, 3600));
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--resume-patience", resume_patience_s, 0, 3600));
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--body-timeout", body_timeout_s, 0.1, 3600));
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--write-timeout", write_timeout_s, 0.1, 3600));
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--max-queued", max_queued, 0, 1 << 20));
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--max-starting", max_starting, 1, 1 << 20));
  CARAVAN_RETURN_IF_ERROR(CheckFlagRange(
      "--max-body-bytes", static_cast<double>(max_body_bytes), 1, 1e10));
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--max-header-bytes", max_header_bytes, 256, 1 << 24));
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--max-connections", max_connections, 1, 1 << 20));
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--max-backlog-tokens", max_backlog_tokens, 1, 1 << 24));
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--idempotency-window", idempotency_window_s, 0, 86400));
  CARAVAN_RETURN_IF_ERROR(
      CheckFlagRange("--idempotency-linger", idempotency_linger_s, 0, 86400));
  CARAVAN_RETURN_IF_ERROR(CheckFlagRange(
      "--idempotency-bytes", static_cast<double>(idempotency_bytes), 0, 1e12));
  CARAVAN_RETURN_IF_ERROR(CheckFlagRange("--threads", threads, 0, 64));
  const bool exposed = listen != "127.0.0.1" && listen != "::1";
  if (!tls_certificate_file.empty() && exposed && http_port >= 0) {
    return FieldError("--tls-cert",
                      "given with --listen on loopback only: HTTP is not "
                      "encrypted, put a TLS proxy before it",
                      listen);
  }
  return ValidateServiceOptions(*this);
}

absl::StatusOr<std::optional<GatewayOptions>> ParseGatewayOptions(
    int argc, const char* const* argv) {
  GatewayOptions options;
  CLI::App app("Takes requests by HTTP and gRPC and streams their tokens.",
               "caravan-gateway");
  AddServiceFlags(app, options);
  AddAddressFlags(app, options);
  AddTimeFlags(app, options);
  AddIdempotencyFlags(app, options);
  AddLimitFlags(app, options);
  CARAVAN_ASSIGN_OR_RETURN(const bool go_on, ParseFlags(app, argc, argv));
  if (!go_on) return std::optional<GatewayOptions>();
  CARAVAN_RETURN_IF_ERROR(options.Validate());
  return std::optional<GatewayOptions>(options);
}

}  // namespace caravan::gateway
