// The metrics of the gateway: handles made once, names in
// common/metrics/names.h.
#ifndef CARAVAN_GATEWAY_GATEWAY_METRICS_H_
#define CARAVAN_GATEWAY_GATEWAY_METRICS_H_

#include <string_view>

#include "common/metrics/registry.h"
#include "gateway/request.h"

namespace caravan::gateway {

// "completions", "chat", "grpc_generate", "grpc_complete".
std::string_view EndpointName(Endpoint endpoint);

// Thread-safe. The registry must outlive it.
class GatewayMetrics {
 public:
  explicit GatewayMetrics(MetricsRegistry* registry);

  // A request ended: "ok", or an error reason.
  void CountRequest(Endpoint endpoint, std::string_view outcome);
  // A continuation on another worker: "lost", "drained", "fault", "other".
  void CountResume(std::string_view cause);

  Gauge* const in_flight;
  Gauge* const queued;
  Histogram* const queue_seconds;
  Counter* const over_share;  // requests
  Histogram* const first_token_seconds;
  Histogram* const inter_token_seconds;
  Histogram* const request_seconds;
  Counter* const prompt_tokens;
  Counter* const cached_tokens;
  Counter* const generated_tokens;
  Counter* const disconnects;
  Counter* const stream_bytes;
  Gauge* const http_connections;

 private:
  MetricsRegistry* const registry_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_GATEWAY_METRICS_H_
