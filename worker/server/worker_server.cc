#include "worker/server/worker_server.h"

#include <utility>

#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/server/address_resolver.h"

namespace caravan::worker {
namespace {

// What ended sessions get to be read to their end.
constexpr absl::Duration kFlushTime = absl::Seconds(2);

// HOST:PORT; see WorkerServerOptions::advertise.
std::string AdvertisedAddress(const WorkerServerOptions& options, int port) {
  std::string host =
      options.advertise.empty() ? options.server.listen : options.advertise;
  if (SplitHostPort(host).ok()) return host;
  if (host.ends_with(":0")) host.resize(host.size() - 2);
  const bool bare_ipv6 = host.find(':') != std::string::npos && host[0] != '[';
  return bare_ipv6 ? StrCat("[", host, "]:", port) : StrCat(host, ":", port);
}

absl::Status CutOff(int64_t groups) {
  return MakeError(
      Reason::kDraining,
      StrCat("the worker is shutting down; ", groups, " groups were cut off"),
      {{"groups", StrCat(groups)}});
}

SubmitLimits LimitsOf(const WorkerFacts& facts) {
  const v1::ModelInfo& model = facts.model;
  return {
      .epoch = facts.epoch,
      .vocabulary_size = model.vocabulary_size(),
      .context_length = model.context_length(),
      .eos_ids = {model.eos_token_ids().begin(), model.eos_token_ids().end()}};
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerServer>> WorkerServer::Start(
    WorkerServerOptions options, WorkerFacts facts, ModelRunner* runner,
    MetricsRegistry* registry, const Clock* clock,
    std::function<void()> on_lost) {
  std::unique_ptr<WorkerServer> server(
      new WorkerServer(std::move(options), std::move(facts), registry, clock,
                       std::move(on_lost)));
  CARAVAN_RETURN_IF_ERROR(server->StartEngine(runner));
  CARAVAN_RETURN_IF_ERROR(server->StartServing());
  CARAVAN_RETURN_IF_ERROR(server->StartRegistration());
  return server;
}

WorkerServer::WorkerServer(WorkerServerOptions options, WorkerFacts facts,
                           MetricsRegistry* registry, const Clock* clock,
                           std::function<void()> on_lost)
    : options_(std::move(options)),
      facts_(std::move(facts)),
      clock_(clock),
      on_lost_(std::move(on_lost)),
      metrics_(registry),
      vllm_(registry, facts_.model.name(), facts_.model.block_count()),
      observer_(&metrics_, &vllm_),
      load_(facts_.model.block_count(), [this] { return engine_->load(); }),
      dispatcher_(clock, &observer_),
      sink_({.dispatcher = &dispatcher_,
             .load = &load_,
             .feed = &feed_,
             .metrics = &metrics_,
             .vllm = &vllm_}) {}

WorkerServer::~WorkerServer() {
  if (grpc_ != nullptr) grpc_->Shutdown(absl::ZeroDuration());
  StopThreads();
}

absl::Status WorkerServer::StartEngine(ModelRunner* runner) {
  CARAVAN_ASSIGN_OR_RETURN(
      engine_, Engine::Create(options_.engine, runner, &sink_, clock_));
  engine_thread_ = std::jthread([this] { RunEngine(); });
  return absl::OkStatus();
}

absl::Status WorkerServer::StartServing() {
  // A peer that knows the port may call at once; port 0 nobody knows.
  if (options_.server.port != 0) SetAddress(options_.server.port);
  service_ =
      std::make_unique<WorkerService>(SessionContext{.facts = &facts_,
                                                     .limits = LimitsOf(facts_),
                                                     .engine = engine_.get(),
                                                     .dispatcher = &dispatcher_,
                                                     .load = &load_,
                                                     .observer = &observer_,
                                                     .clock = clock_},
                                      options_.session_backlog_bytes);
  CARAVAN_ASSIGN_OR_RETURN(
      grpc_,
      GrpcServer::Start(options_.server,
                        {service_.get(), &stage_service_, &kv_service_}));
  if (options_.server.port == 0) SetAddress(grpc_->port());
  metrics_.SetModel(facts_);
  metrics_.SetPlanned(facts_.memory);
  grpc_->SetServing(true);
  housekeeping_thread_ = std::jthread([this] { RunHousekeeping(); });
  return absl::OkStatus();
}

void WorkerServer::SetAddress(int port) {
  facts_.address = AdvertisedAddress(options_, port);
  facts_.worker_id = facts_.address;
}

absl::Status WorkerServer::StartRegistration() {
  if (options_.registration.routers.empty()) return absl::OkStatus();
  CARAVAN_ASSIGN_OR_RETURN(
      registration_,
      RegistrationClient::Start(
          options_.registration,
          {.facts = &facts_, .load = &load_, .feed = &feed_}, clock_));
  sink_.SetListener(registration_.get());
  return absl::OkStatus();
}

void WorkerServer::RunEngine() {
  const absl::Status status = engine_->Run();
  if (status.ok()) return;
  LogError("runner_lost", {{"status", status}});
  {
    absl::MutexLock lock(&mutex_);
    engine_status_ = status;
  }
  on_lost_();
}

void WorkerServer::RunHousekeeping() {
  bool stopping = false;
  while (!stopping) {
    service_->SendHeartbeats();
    metrics_.UpdateResidentBytes();
    metrics_.ObserveLoad(engine_->load());
    vllm_.ObserveLoad(engine_->load());
    metrics_.SetSessions(service_->session_count());
    absl::MutexLock lock(&mutex_);
    stopping = mutex_.AwaitWithTimeout(
        absl::Condition(this, &WorkerServer::StoppingLocked),
        kSessionHeartbeat);
  }
}

absl::Status WorkerServer::Drain(absl::Duration grace) {
  grpc_->SetServing(false);
  engine_->StartDrain();
  if (registration_ != nullptr) registration_->StartDrain();
  service_->StartDrain(grace);
  const bool drained = dispatcher_.AwaitNoneOpen(grace);
  absl::Status status = engine_status();
  if (status.ok() && !drained) status = CutOff(dispatcher_.open_count());
  service_->EndSessions(status);
  grpc_->Shutdown(kFlushTime);
  StopThreads();
  return status;
}

void WorkerServer::StopThreads() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (engine_ != nullptr) engine_->Stop();
  if (engine_thread_.joinable()) engine_thread_.join();
  if (housekeeping_thread_.joinable()) housekeeping_thread_.join();
  sink_.SetListener(nullptr);
  registration_.reset();
}

int32_t WorkerServer::registered_count() const {
  return registration_ == nullptr ? 0 : registration_->registered_count();
}

absl::Status WorkerServer::engine_status() const {
  absl::MutexLock lock(&mutex_);
  return engine_status_;
}

}  // namespace caravan::worker
