// caravan-router: holds the fleet's soft state and answers placements.
#include <unistd.h>

#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "common/build_info.h"
#include "common/clock.h"
#include "common/grpc/server.h"
#include "common/grpc/service_options.h"
#include "common/log.h"
#include "common/metrics/names.h"
#include "common/metrics/registry.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/router/options.h"
#include "services/router/policy_factory.h"
#include "services/router/router_service.h"

namespace caravan::router {
namespace {

// A fraction of a heartbeat, so that the dead are not noticed much later.
constexpr absl::Duration kTickInterval = absl::Milliseconds(100);

uint64_t DrawSeed() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

std::string SenderId() {
  char host[256] = "localhost";
  gethostname(host, sizeof(host) - 1);
  return StrCat("router-", host, "-", getpid());
}

// Calls Tick until destroyed.
class Ticker {
 public:
  explicit Ticker(RouterService* service)
      : thread_([this, service] {
          while (!stop_.WaitForNotificationWithTimeout(kTickInterval)) {
            service->Tick();
          }
        }) {}
  ~Ticker() { stop_.Notify(); }

 private:
  absl::Notification stop_;
  std::jthread thread_;  // last: joined before the notification dies
};

absl::StatusOr<std::unique_ptr<RouterService>> MakeService(
    const RouterOptions& options, MetricsRegistry* registry) {
  const uint64_t seed = options.policy_seed ? options.policy_seed : DrawSeed();
  CARAVAN_ASSIGN_OR_RETURN(std::unique_ptr<Policy> policy,
                           MakePolicy(options.policy, seed));
  RouterServiceOptions service_options;
  service_options.placer.max_index_entries = options.max_indexed_blocks;
  service_options.sender_id = SenderId();
  return std::make_unique<RouterService>(service_options, &SystemClock::Get(),
                                         registry, std::move(policy));
}

absl::Status Serve(const RouterOptions& options) {
  MetricsRegistry registry;
  registry
      .MakeGauge(metrics::kBuildInfo,
                 {{"process", "router"}, {"build", std::string(BuildId())}})
      ->Set(1);
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<RouterService> service,
                           MakeService(options, &registry));
  CARAVAN_ASSIGN_OR_RETURN(
      const std::unique_ptr<GrpcServer> server,
      GrpcServer::Start(ToServerOptions(options, options.port),
                        {service.get()}));
  CARAVAN_ASSIGN_OR_RETURN(
      const int metrics_port,
      registry.Expose(options.listen, options.metrics_port));
  const Ticker ticker(service.get());
  server->SetServing(true);
  LogInfo("ready", {{"grpc_port", server->port()},
                    {"metrics_port", metrics_port},
                    {"policy", options.policy}});
  AnnounceReady({{"grpc", StrCat(options.listen, ":", server->port())},
                 {"metrics", StrCat(options.listen, ":", metrics_port)}});

  const int signal = WaitForTerminationSignal();
  LogInfo("draining", {{"signal", signal}});
  service->Drain();
  server->Shutdown(absl::Seconds(options.grace_s));
  LogInfo("stopped", {});
  return absl::OkStatus();
}

}  // namespace
}  // namespace caravan::router

int main(int argc, char** argv) {
  caravan::BlockTerminationSignals();
  return caravan::RunService("router",
                             caravan::router::ParseRouterOptions(argc, argv),
                             caravan::router::Serve);
}
