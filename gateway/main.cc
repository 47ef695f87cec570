// caravan-gateway: takes requests by HTTP and gRPC and streams their tokens.
#include <memory>

#include "common/grpc/server.h"
#include "common/grpc/service_options.h"
#include "common/log.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "gateway/gateway.h"
#include "gateway/options.h"

namespace caravan::gateway {
namespace {

absl::Status Serve(const GatewayOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<Gateway> gateway,
                           Gateway::Start(options));
  LogInfo("ready", {{"http_port", gateway->http_port()},
                    {"grpc_port", gateway->grpc_port()},
                    {"metrics_port", gateway->metrics_port()}});
  AnnounceReady(
      {{"grpc", StrCat(options.listen, ":", gateway->grpc_port())},
       {"metrics", StrCat(options.listen, ":", gateway->metrics_port())},
       {"http", StrCat(options.listen, ":", gateway->http_port())}});
  const int signal = WaitForTerminationSignal();
  LogInfo("draining", {{"signal", signal}});
  gateway->Shutdown(absl::Seconds(options.grace_s));
  LogInfo("stopped", {});
  return absl::OkStatus();
}

}  // namespace
}  // namespace caravan::gateway

int main(int argc, char** argv) {
  caravan::BlockTerminationSignals();
  return caravan::RunService("gateway",
                             caravan::gateway::ParseGatewayOptions(argc, argv),
                             caravan::gateway::Serve);
}
