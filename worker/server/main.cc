// caravan-worker: serves one model to gateways.
#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <utility>

#include "common/build_info.h"
#include "common/clock.h"
#include "common/grpc/server.h"
#include "common/log.h"
#include "common/metrics/names.h"
#include "common/metrics/registry.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/server/address_resolver.h"
#include "worker/server/model_startup.h"
#include "worker/server/options.h"
#include "worker/server/worker_server.h"

namespace caravan::worker {
namespace {

constexpr absl::Duration kProgressInterval = absl::Milliseconds(500);

uint64_t RandomEpoch() {
  std::random_device device;
  const uint64_t high = device();
  return (high << 32 | device()) | 1;  // 0 is the epoch of those without one
}

WorkerServerOptions ServerOptionsOf(const WorkerOptions& options,
                                    const ServedModel& model) {
  WorkerServerOptions server;
  server.server = options.server;
  server.advertise = options.advertise;
  server.registration.routers = options.routers;
  server.registration.channel.tls = options.server.tls;
  server.registration.resolve = ResolveAddresses;
  server.engine = EngineOptionsOf(options, model);
  server.session_backlog_bytes =
      static_cast<size_t>(options.session_backlog_bytes);
  return server;
}

WorkerFacts FactsOf(const ServedModel& model) {
  WorkerFacts facts;
  facts.epoch = RandomEpoch();
  facts.model = model.info;
  facts.memory = model.planned;
  return facts;
}

// A lost runner ends the process as SIGTERM would; main tells them apart.
void RequestTermination() { kill(getpid(), SIGTERM); }

// A line now and then: a small model loads in milliseconds, a large one in
// minutes.
void LogProgress(int percent) {
  static absl::Time next_line = absl::InfinitePast();  // of the main thread
  const absl::Time now = SystemClock::Get().Now();
  if (now < next_line && percent < 100) return;
  next_line = now + kProgressInterval;
  LogInfo("load_progress", {{"percent", percent}});
}

// Nothing is served while the model loads, so there is nothing to end in
// order.
void OnLoadProgress(int percent) {
  LogProgress(percent);
  sigset_t pending;
  if (sigpending(&pending) == 0 && (sigismember(&pending, SIGTERM) == 1 ||
                                    sigismember(&pending, SIGINT) == 1)) {
    LogInfo("ended_while_loading", {{"percent", percent}});
    std::_Exit(0);
  }
}

void Announce(const WorkerOptions& options, const WorkerServer& server,
              int metrics_port) {
  LogInfo("ready",
          {{"worker_id", server.facts().worker_id},
           {"model", server.facts().model.name()},
           {"epoch", server.facts().epoch},
           {"class", server.facts().model.identity().numerics_class()}});
  const std::string& host = options.server.listen;
  AnnounceReady({{"grpc", StrCat(host, ":", server.port())},
                 {"metrics", StrCat(host, ":", metrics_port)}});
}

// Returns OK after an orderly end.
absl::Status Serve(const WorkerOptions& options) {
  const SystemClock& clock = SystemClock::Get();
  const absl::Time start = clock.Now();
  MetricsRegistry registry;
  registry
      .MakeGauge(metrics::kBuildInfo,
                 {{"process", "worker"}, {"build", std::string(BuildId())}})
      ->Set(1);
  CARAVAN_ASSIGN_OR_RETURN(
      const int metrics_port,
      registry.Expose(options.server.listen, options.metrics_port));
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<ServedModel> model,
                           StartModel(options, OnLoadProgress));
  CARAVAN_ASSIGN_OR_RETURN(
      const std::unique_ptr<WorkerServer> server,
      WorkerServer::Start(ServerOptionsOf(options, *model), FactsOf(*model),
                          model->runner.get(), &registry, &clock,
                          RequestTermination));
  server->metrics().SetAllocated(model->allocated);
  server->metrics().SetLoadTime(clock.Now() - start);
  Announce(options, *server, metrics_port);
  const int signal_number = WaitForTerminationSignal();
  LogInfo("draining", {{"signal", signal_number},
                       {"grace", absl::FormatDuration(options.grace)}});
  const absl::Status status = server->Drain(options.grace);
  LogInfo("drained", {{"status", status}});
  return status;
}

int Run(int argc, char** argv) {
  BlockTerminationSignals();
  InitLog("worker");
  WorkerOptions options;
  if (const auto code = ParseOptions(argc, argv, &options)) return *code;
  InitLog("worker", options.log_level);
  const absl::Status status = Serve(options);
  if (status.ok()) return 0;
  if (ReasonOf(status) == Reason::kDraining) {  // grace was over
    LogWarning("drained_late", {{"status", status}});
    return 0;
  }
  LogError("ended",
           {{"reason", ReasonName(ReasonOf(status))}, {"status", status}});
  return 1;
}

}  // namespace
}  // namespace caravan::worker

int main(int argc, char** argv) { return caravan::worker::Run(argc, argv); }
