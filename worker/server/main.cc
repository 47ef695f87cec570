// caravan-worker: serves one model to gateways.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>

#include "common/build_info.h"
#include "common/clock.h"
#include "common/grpc/channel.h"
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
#include "worker/server/stage_link_client.h"
#include "worker/server/stage_metrics.h"
#include "worker/server/stage_service.h"
#include "worker/server/worker_server.h"
#include "worker/shard/pipeline_runner.h"

namespace caravan::worker {
namespace {

constexpr absl::Duration kProgressInterval = absl::Milliseconds(500);

// What the next stage of a chain and each one behind it have to answer.
constexpr absl::Duration kStageAnswerTime = absl::Seconds(5);
constexpr absl::Duration kFirstBackoff = absl::Milliseconds(100);
constexpr absl::Duration kGreatestBackoff = absl::Seconds(2);

// By which other threads wake the main one: a later stage is lost, or drains.
constexpr int kStageLost = SIGUSR1;
constexpr int kStageDrains = SIGUSR2;

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

WorkerFacts FactsOf(const ServedModel& model, uint64_t epoch) {
  WorkerFacts facts;
  facts.epoch = epoch;
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

void ExposeRanks(const MetricFamily& family, std::span<const RankMemory> ranks,
                 MetricsRegistry& registry) {
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto set = [&](const char* part, size_t bytes) {
      registry.MakeGauge(family, {{"rank", StrCat(rank)}, {"part", part}})
          ->Set(static_cast<double>(bytes));
    };
    set("weights", ranks[rank].weight_bytes);
    set("kv", ranks[rank].kv_bytes);
    set("scratch", ranks[rank].scratch_bytes);
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

// What all kinds of workers stand on.
struct Process {
  MetricsRegistry registry;
  int metrics_port = 0;
  absl::Time start;
  std::unique_ptr<ServedModel> model;
};

absl::Status ServeWhole(const WorkerOptions& options, Process& process) {
  const ServedModel& model = *process.model;
  CARAVAN_ASSIGN_OR_RETURN(
      const std::unique_ptr<WorkerServer> server,
      WorkerServer::Start(ServerOptionsOf(options, model),
                          FactsOf(model, RandomEpoch()), model.runner.get(),
                          &process.registry, &SystemClock::Get(),
                          RequestTermination));
  server->metrics().SetAllocated(model.allocated);
  server->metrics().SetLoadTime(SystemClock::Get().Now() - process.start);
  Announce(options, *server, process.metrics_port);
  const int signal_number = WaitForTerminationSignal();
  LogInfo("draining", {{"signal", signal_number},
                       {"grace", absl::FormatDuration(options.grace)}});
  const absl::Status status = server->Drain(options.grace);
  LogInfo("drained", {{"status", status}});
  return status;
}

sigset_t SignalSet(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : signals) sigaddset(&set, number);
  return set;
}

void BlockStageSignals() {
  const sigset_t set = SignalSet({kStageLost, kStageDrains});
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

void Wake(int signal_number) { kill(getpid(), signal_number); }

// Waits for one of the signals, which must be blocked; 0 after `timeout`.
int AwaitSignal(std::initializer_list<int> signals, absl::Duration timeout) {
  const sigset_t set = SignalSet(signals);
  const timespec time = absl::ToTimespec(timeout);
  while (true) {
    const int number = sigtimedwait(&set, nullptr, &time);
    if (number > 0) return number;
    if (errno != EINTR) return 0;
  }
}

std::string StageName(const WorkerOptions& options) {
  return StrCat("stage-", options.stage.index, "-of-", options.stage.count, "-",
                getpid());
}

absl::StatusOr<std::unique_ptr<StageLinkClient>> FormBehind(
    const WorkerOptions& options, const StageFacts& facts,
    StageLinkOptions link, StageMetrics* metrics) {
  const int behind = options.stage.count - options.stage.index - 1;
  link.timeout = kStageAnswerTime * behind;
  // Another channel each time: one that has failed waits before it tries.
  CARAVAN_ASSIGN_OR_RETURN(
      std::shared_ptr<grpc::Channel> channel,
      MakeChannel(options.next,
                  {.tls = options.server.tls,
                   .max_message_bytes = options.server.max_message_bytes}));
  return StageLinkClient::Form(std::move(channel), facts, link, metrics);
}

// Tries until the chain stands. Null when the process is asked to end.
std::unique_ptr<StageLinkClient> FormChain(const WorkerOptions& options,
                                           const StageFacts& facts,
                                           uint64_t epoch,
                                           StageMetrics* metrics) {
  StageLinkOptions link;
  link.epoch = epoch;
  link.depth = options.EffectiveDepth();
  link.on_draining = [] { Wake(kStageDrains); };
  absl::Duration pause = kFirstBackoff;
  std::string told;
  while (true) {
    auto formed = FormBehind(options, facts, link, metrics);
    if (formed.ok()) return *std::move(formed);
    if (std::exchange(told, std::string(formed.status().message())) !=
        formed.status().message()) {
      LogWarning("chain_not_formed",
                 {{"next", options.next}, {"status", formed.status()}});
    }
    if (AwaitSignal({SIGINT, SIGTERM}, pause) != 0) return nullptr;
    pause = std::min(2 * pause, kGreatestBackoff);
  }
}

// One life of the chain: forms it, serves until it is lost or the process is
// asked to end. Returns the signal that ended it. Nothing of an epoch but the
// weights outlives it: blocks, hashes and sequences go with the server.
absl::StatusOr<int> ServeEpoch(WorkerOptions& options, Process& process,
                               StageMetrics* metrics, bool first) {
  ServedModel& model = *process.model;
  const uint64_t epoch = RandomEpoch();
  CARAVAN_ASSIGN_OR_RETURN(const StageFacts facts,
                           StageFactsOf(options, model, StageName(options)));
  std::unique_ptr<StageLinkClient> link =
      FormChain(options, facts, epoch, metrics);
  if (link == nullptr) return SIGTERM;
  CARAVAN_ASSIGN_OR_RETURN(const ReplicaFacts replica,
                           JoinStages(facts, link->formed()));
  CARAVAN_RETURN_IF_ERROR(IdentifyReplica(options, replica, &model));
  metrics->OnFormed();
  model.shard->DropAllSequences();
  PipelineRunner runner(model.shard.get(), std::move(link),
                        {.max_in_flight = options.EffectiveDepth(),
                         .step_timeout = options.step_timeout,
                         .observer = metrics},
                        [metrics](const absl::Status& status) {
                          metrics->OnLost(status);
                          LogWarning("stage_lost", {{"status", status}});
                          Wake(kStageLost);
                        });
  CARAVAN_ASSIGN_OR_RETURN(
      const std::unique_ptr<WorkerServer> server,
      WorkerServer::Start(ServerOptionsOf(options, model),
                          FactsOf(model, epoch), &runner, &process.registry,
                          &SystemClock::Get(), [] { Wake(kStageLost); }));
  options.server.port = server->port();  // the next life has the same
  LogInfo("chain_formed", {{"epoch", epoch},
                           {"stages", options.stage.count},
                           {"kv_blocks", replica.block_count}});
  if (first) {
    server->metrics().SetAllocated(model.allocated);
    server->metrics().SetLoadTime(SystemClock::Get().Now() - process.start);
    Announce(options, *server, process.metrics_port);
  }
  const int signal_number = AwaitSignal(
      {SIGINT, SIGTERM, kStageLost, kStageDrains}, absl::Hours(24 * 365));
  const absl::Duration grace =
      signal_number == kStageLost ? absl::ZeroDuration() : options.grace;
  LogInfo("draining",
          {{"signal", signal_number}, {"grace", absl::FormatDuration(grace)}});
  LogInfo("drained", {{"status", server->Drain(grace)}});
  return signal_number;
}

absl::Status ServeFirstStage(WorkerOptions options, Process& process) {
  StageMetrics metrics(&process.registry);
  for (bool first = true;; first = false) {
    CARAVAN_ASSIGN_OR_RETURN(const int signal_number,
                             ServeEpoch(options, process, &metrics, first));
    if (signal_number == SIGINT || signal_number == SIGTERM) {
      return absl::OkStatus();
    }
    // What woke us more than once is over with the epoch.
    while (AwaitSignal({kStageLost, kStageDrains}, absl::ZeroDuration()) != 0) {
    }
  }
}

absl::Status ServeLaterStage(const WorkerOptions& options, Process& process) {
  StageMetrics metrics(&process.registry);
  CARAVAN_ASSIGN_OR_RETURN(
      const StageFacts facts,
      StageFactsOf(options, *process.model, StageName(options)));
  StageService service(
      facts, process.model->shard.get(),
      [&](const StageLinkOptions& link) {
        return FormBehind(options, facts, link, &metrics);
      },
      &metrics);
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<GrpcServer> server,
                           GrpcServer::Start(options.server, {&service}));
  server->SetServing(true);
  LogInfo("ready",
          {{"worker_id", facts.worker_id}, {"class", facts.numerics_class}});
  const std::string& host = options.server.listen;
  AnnounceReady({{"grpc", StrCat(host, ":", server->port())},
                 {"metrics", StrCat(host, ":", process.metrics_port)}});
  const int signal_number = WaitForTerminationSignal();
  LogInfo("draining", {{"signal", signal_number},
                       {"grace", absl::FormatDuration(options.grace)}});
  server->SetServing(false);
  const bool let_go = service.Drain(options.grace);
  LogInfo("drained", {{"let_go", let_go ? 1 : 0}});
  return absl::OkStatus();
}

// Plans of as many tokens as a step may have must fit one message.
absl::Status FitMessages(const ServedModel& model, WorkerOptions& options) {
  constexpr int64_t kMostBytes = int64_t{1} << 30;
  constexpr int64_t kRowBytes = 8 << 20;
  const int64_t token_bytes = static_cast<int64_t>(sizeof(float)) *
                              model.description.config.hidden_size;
  const int64_t bytes = options.max_step_tokens * token_bytes + kRowBytes;
  if (bytes > kMostBytes) {
    return FieldError("--max-step-tokens",
                      StrCat("at most ", (kMostBytes - kRowBytes) / token_bytes,
                             " in a chain of stages"),
                      StrCat(options.max_step_tokens));
  }
  options.server.max_message_bytes =
      std::max(options.server.max_message_bytes, static_cast<int>(bytes));
  return absl::OkStatus();
}

// Returns OK after an orderly end.
absl::Status Serve(WorkerOptions options) {
  Process process;
  process.start = SystemClock::Get().Now();
  MetricsRegistry& registry = process.registry;
  registry
      .MakeGauge(metrics::kBuildInfo,
                 {{"process", "worker"}, {"build", std::string(BuildId())}})
      ->Set(1);
  registry.MakeGauge(metrics::kWorkerRanks, {})->Set(options.ranks);
  CARAVAN_ASSIGN_OR_RETURN(
      process.metrics_port,
      registry.Expose(options.server.listen, options.metrics_port));
  CARAVAN_ASSIGN_OR_RETURN(process.model, StartModel(options, OnLoadProgress));
  const ServedModel& model = *process.model;
  ExposeRanks(metrics::kWorkerRankPlannedBytes, model.planned_ranks, registry);
  ExposeRanks(metrics::kWorkerRankAllocatedBytes, model.allocated_ranks,
              registry);
  if (options.stage.whole()) return ServeWhole(options, process);
  CARAVAN_RETURN_IF_ERROR(FitMessages(*process.model, options));
  return options.stage.first() ? ServeFirstStage(options, process)
                               : ServeLaterStage(options, process);
}

int Run(int argc, char** argv) {
  BlockTerminationSignals();
  BlockStageSignals();
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
