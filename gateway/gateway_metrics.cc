#include "gateway/gateway_metrics.h"

#include <string>

#include "common/metrics/names.h"

namespace caravan::gateway {

std::string_view EndpointName(Endpoint endpoint) {
  switch (endpoint) {
    case Endpoint::kCompletions:
      return "completions";
    case Endpoint::kChat:
      return "chat";
    case Endpoint::kGrpcGenerate:
      return "grpc_generate";
    case Endpoint::kGrpcComplete:
      return "grpc_complete";
  }
  return "unknown";
}

GatewayMetrics::GatewayMetrics(MetricsRegistry* registry)
    : in_flight(registry->MakeGauge(metrics::kGatewayInFlight, {})),
      queued(registry->MakeGauge(metrics::kGatewayQueued, {})),
      queue_seconds(registry->MakeHistogram(metrics::kGatewayQueueSeconds, {})),
      over_share(registry->MakeCounter(metrics::kGatewayOverShare, {})),
      first_token_seconds(
          registry->MakeHistogram(metrics::kGatewayFirstTokenSeconds, {})),
      inter_token_seconds(
          registry->MakeHistogram(metrics::kGatewayInterTokenSeconds, {})),
      request_seconds(
          registry->MakeHistogram(metrics::kGatewayRequestSeconds, {})),
      prompt_tokens(registry->MakeCounter(metrics::kGatewayPromptTokens, {})),
      cached_tokens(registry->MakeCounter(metrics::kGatewayCachedTokens, {})),
      generated_tokens(
          registry->MakeCounter(metrics::kGatewayGeneratedTokens, {})),
      disconnects(registry->MakeCounter(metrics::kGatewayDisconnects, {})),
      stream_bytes(registry->MakeCounter(metrics::kGatewayStreamBytes, {})),
      http_connections(
          registry->MakeGauge(metrics::kGatewayHttpConnections, {})),
      registry_(registry) {
  // Series that a rate is taken of must be there, with 0, before they happen.
  for (const char* cause : {"lost", "drained", "fault", "other"}) {
    registry->MakeCounter(metrics::kGatewayResumes, {{"cause", cause}});
  }
  for (const Endpoint endpoint :
       {Endpoint::kCompletions, Endpoint::kChat, Endpoint::kGrpcGenerate,
        Endpoint::kGrpcComplete}) {
    registry->MakeCounter(
        metrics::kGatewayRequests,
        {{"endpoint", std::string(EndpointName(endpoint))}, {"outcome", "ok"}});
  }
}

void GatewayMetrics::CountRequest(Endpoint endpoint, std::string_view outcome) {
  registry_
      ->MakeCounter(metrics::kGatewayRequests,
                    {{"endpoint", std::string(EndpointName(endpoint))},
                     {"outcome", std::string(outcome)}})
      ->Increment();
}

void GatewayMetrics::CountResume(std::string_view cause) {
  registry_
      ->MakeCounter(metrics::kGatewayResumes, {{"cause", std::string(cause)}})
      ->Increment();
}

}  // namespace caravan::gateway
