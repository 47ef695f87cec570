// Flags of caravan-gateway.
#ifndef CARAVAN_GATEWAY_OPTIONS_H_
#define CARAVAN_GATEWAY_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/grpc/service_options.h"

namespace caravan::gateway {

struct GatewayOptions : ServiceOptions {
  GatewayOptions() { metrics_port = 9480; }

  // Parameters that affect behavior.

  int http_port = 8080;  // --http-port; 0: any free port
  int grpc_port = 8081;  // --grpc-port; 0: any free port
  // --router, --tokenizer: HOST:PORT[,HOST:PORT...]; any copy will do.
  std::vector<std::string> routers = {"127.0.0.1:8090"};
  std::vector<std::string> tokenizers = {"127.0.0.1:8091"};
  std::string api_keys_file;     // --api-keys: empty: no keys
  double request_timeout_s = 0;  // --request-timeout: of HTTP requests; 0: none
  double start_patience_s = 30;  // --start-patience: tokenizer, router away
  double resume_patience_s = 30;  // --resume-patience: worker lost

  // --idempotency-window: for how long a stream with a key can be attached to
  // after its end; --idempotency-linger: for how long it runs unread.
  double idempotency_window_s = 300;
  double idempotency_linger_s = 30;

  // Limits.

  int32_t max_queued = 4096;   // --max-queued: requests that wait; then 429
  int32_t max_starting = 256;  // --max-starting: at workers, without a token
  int64_t max_body_bytes = 100'000'000;  // --max-body-bytes: then 413
  int32_t max_header_bytes = 64 << 10;   // --max-header-bytes: then 431
  int32_t max_connections = 16'384;      // --max-connections: of HTTP
  double body_timeout_s = 20;            // --body-timeout: slow bodies; 408
  double write_timeout_s = 30;           // --write-timeout: slow readers
  // --idempotency-bytes: of streams with a key that have ended.
  int64_t idempotency_bytes = int64_t{64} << 20;
  int32_t max_backlog_tokens = 4096;  // --max-backlog-tokens: slow readers

  // Parameters that affect performance.

  int threads = 0;  // --threads: of requests; 0: half the cores, 1 to 8

  // Errors: kInvalidField naming the flag.
  absl::Status Validate() const;
};

// Nothing when help was asked for, and printed. Errors: kInvalidField.
absl::StatusOr<std::optional<GatewayOptions>> ParseGatewayOptions(
    int argc, const char* const* argv);

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_OPTIONS_H_
