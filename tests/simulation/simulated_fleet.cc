#include "tests/simulation/simulated_fleet.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "common/kv/block_hash.h"
#include "common/strings.h"

namespace caravan::simulation {
namespace {

constexpr absl::Duration kRouterTick = absl::Milliseconds(250);
// A gateway that found no replica asks again.
constexpr absl::Duration kPlaceAgain = absl::Milliseconds(100);
// A gateway gives a silent session up after four heartbeats and a half.
constexpr double kDeadAfterBeats = 4.5;
constexpr double kExpectedOutput = 64;
constexpr std::string_view kClass = "simulated/v1";
constexpr std::string_view kModel = "model";

std::string Bytes32(char c) { return std::string(32, c); }

std::string WorkerName(int index) { return StrCat("worker-", index); }

// The reverse of WorkerName.
int WorkerIndex(const std::string& name) {
  return std::atoi(name.c_str() + name.find('-') + 1);
}

router::ReplicaInfo InfoOf(int index, uint64_t epoch,
                           const worker::EngineOptions& engine) {
  router::ReplicaInfo info;
  info.worker_id = WorkerName(index);
  info.address = StrCat("host-", index, ":8100");
  info.epoch = epoch;
  info.model = kModel;
  info.identity = {Bytes32('w'), std::string(kClass), Bytes32('f'),
                   Bytes32('t'), ""};
  info.context_length = engine.context_length;
  info.vocabulary_size = 32'000;
  info.block_size = kv::kBlockTokens;
  info.block_count = engine.block_count;
  info.max_running_count = engine.max_running;
  info.takes_whole = true;
  return info;
}

kv::BlockHash Root() {
  const std::string weights = Bytes32('w');
  const std::string fingerprint = Bytes32('f');
  return kv::HashRoot({.weights_id = weights,
                       .numerics_class = kClass,
                       .fingerprint = fingerprint});
}

}  // namespace

worker::EngineOptions FleetOptions::DefaultEngine() {
  worker::EngineOptions options;
  options.block_count = 4096;
  options.max_running = 32;
  options.context_length = 4096;
  options.weights_id = Bytes32('w');
  options.numerics_class = kClass;
  options.fingerprint = Bytes32('f');
  return options;
}

SimulatedFleet::SimulatedFleet(const FleetOptions& options,
                               const std::vector<TraceRequest>& trace)
    : options_(options),
      trace_(trace),
      random_(options.seed),
      workers_(static_cast<size_t>(options.workers)),
      running_(trace.size()),
      outcomes_(trace.size()) {
  for (int r = 0; r < options.routers; ++r) {
    routers_.push_back({std::make_unique<router::Placer>(
        options.placer, &time_, options.policy(random_.Next()))});
  }
  for (int g = 0; g < options.gateways; ++g) {
    gateways_.emplace_back(options.limiter).router = g % options.routers;
  }
  for (int w = 0; w < options.workers; ++w) StartWorker(w);
}

SimulatedFleet::~SimulatedFleet() = default;

FleetResult SimulatedFleet::Run() {
  // Workers have registered and beaten once before the first request.
  const absl::Duration start = options_.heartbeat * 2;
  for (size_t i = 0; i < trace_.size(); ++i) {
    outcomes_[i].arrival =
        start + absl::Seconds(trace_[i].arrival / options_.requests_per_second);
    outcomes_[i].tenant = trace_[i].tenant;
    time_.At(outcomes_[i].arrival, [this, i] { Arrive(i); });
  }
  for (const Fault& fault : options_.faults) {
    time_.At(fault.at, [this, fault] { Apply(fault); });
  }
  TickRouters();
  time_.At(start, [this] { SampleLoad(); });
  while (!AllEnded() && time_.RunNext()) {
  }
  absl::Duration busy;
  for (const Worker& worker : workers_) {
    result_.steps += worker.engine->step_count();
    result_.prefill_tokens += worker.engine->prefill_tokens();
    result_.cached_tokens += worker.engine->cached_tokens();
    busy += worker.engine->busy_time();
  }
  result_.busy_share =
      absl::FDivDuration(busy, (time_.elapsed() - start) * options_.workers);
  result_.outcomes = outcomes_;
  return std::move(result_);
}

// --- Workers -----------------------------------------------------------------

void SimulatedFleet::StartWorker(int index) {
  Worker& worker = workers_[static_cast<size_t>(index)];
  if (worker.engine) graveyard_.push_back(std::move(worker.engine));
  worker.engine = std::make_unique<SimulatedWorker>(
      options_.engine, options_.cost, &time_,
      [this, index](const worker::StepReport& report) {
        OnReport(index, report);
      },
      [this](const worker::QueueNews& news) { OnQueueNews(news); });
  ++worker.epoch;
  worker.stream = next_stream_++;
  worker.kv_sequence = 0;
  worker.silent = false;
  Register(index);
  const absl::Duration phase = options_.heartbeat * random_.Uniform();
  time_.After(phase,
              [this, index, stream = worker.stream] { Beat(index, stream); });
}

void SimulatedFleet::Register(int index) {
  const Worker& worker = workers_[static_cast<size_t>(index)];
  for (Router& router : routers_) {
    const auto registered = router.placer->Register(
        worker.stream, InfoOf(index, worker.epoch, options_.engine));
    if (!registered.ok()) std::abort();
  }
}

void SimulatedFleet::Beat(int index, int64_t stream) {
  const Worker& worker = workers_[static_cast<size_t>(index)];
  if (worker.stream != stream || worker.silent || AllEnded()) return;
  BeatOnce(index);
  time_.After(options_.heartbeat,
              [this, index, stream] { Beat(index, stream); });
}

void SimulatedFleet::BeatOnce(int index) {
  const Worker& worker = workers_[static_cast<size_t>(index)];
  const worker::EngineLoad engine = worker.engine->load();
  router::ReplicaLoad load;
  const worker::EngineLoad::Yielding& yielding = engine.yielding;
  load.running_count = engine.running_sequences - yielding.running_sequences;
  load.waiting_count = engine.waiting_sequences - yielding.waiting_sequences;
  load.leased_blocks = engine.leased_blocks - yielding.leased_blocks;
  load.cached_blocks = engine.cached_blocks;
  load.queued_prefill_tokens = engine.queued_prefill_tokens;
  load.prefill_tokens_per_second =
      static_cast<float>(options_.cost.prefill_tokens_per_second());
  time_.After(options_.network, [this, stream = worker.stream, load] {
    for (Router& router : routers_) {
      if (router.alive) (void)router.placer->Heartbeat(stream, load, false);
    }
  });
}

void SimulatedFleet::OnReport(int index, const worker::StepReport& report) {
  SendKvChanges(index, report.kv_changes);
  for (const worker::TokenEvent& event : report.tokens) OnToken(event);
  for (const worker::FinishEvent& event : report.finishes) {
    OnFinish(event, index);
  }
  if (!report.errors.empty()) std::abort();  // no request here can fail
}

// The gateways hear of what waits.
void SimulatedFleet::OnQueueNews(const worker::QueueNews& news) {
  for (const worker::GroupId group : news.queued) {
    time_.After(options_.network, [this, group] {
      const auto it = request_of_.find(group);
      if (it == request_of_.end()) return;
      const size_t request = it->second;
      gateways_[static_cast<size_t>(GatewayOf(request))].limiter.OnWaitAtWorker(
          running_[request].ticket);
    });
  }
}

void SimulatedFleet::SendKvChanges(int index,
                                   const worker::KvChanges& changes) {
  if (changes.stored.empty() && changes.removed.empty()) return;
  Worker& worker = workers_[static_cast<size_t>(index)];
  router::KvChange change;
  change.sequence_number = ++worker.kv_sequence;
  change.stored = changes.stored;
  change.removed = changes.removed;
  time_.After(options_.network,
              [this, stream = worker.stream, change = std::move(change)] {
                for (Router& router : routers_) {
                  if (!router.alive) continue;
                  (void)router.placer->ApplyKvChange(stream, change);
                }
              });
}

// --- Faults ------------------------------------------------------------------

void SimulatedFleet::Apply(const Fault& fault) {
  const auto index = static_cast<size_t>(fault.index);
  switch (fault.kind) {
    case FaultKind::kKillWorker:
      return KillWorker(fault.index);
    case FaultKind::kSilenceWorker:
      workers_[index].silent = true;
      workers_[index].engine->Stop();
      time_.After(options_.heartbeat * kDeadAfterBeats,
                  [this, fault] { LoseStreams(fault.index); });
      return;
    case FaultKind::kRestartWorker:
      return StartWorker(fault.index);
    case FaultKind::kKillRouter:
      routers_[index].alive = false;
      return;
  }
}

void SimulatedFleet::KillWorker(int index) {
  Worker& worker = workers_[static_cast<size_t>(index)];
  worker.silent = true;
  worker.engine->Stop();
  time_.After(options_.network, [this, index, stream = worker.stream] {
    for (Router& router : routers_) (void)router.placer->Disconnect(stream);
    LoseStreams(index);
  });
}

// What runs there is placed again.
void SimulatedFleet::LoseStreams(int index) {
  Worker& worker = workers_[static_cast<size_t>(index)];
  for (const worker::GroupId group : std::exchange(worker.groups, {})) {
    const auto it = request_of_.find(group);
    if (it == request_of_.end()) continue;
    const size_t request = it->second;
    request_of_.erase(it);
    running_[request].worker = -1;
    running_[request].excluded.push_back(WorkerName(index));
    Place(request);
  }
}

// --- Requests ----------------------------------------------------------------

int SimulatedFleet::GatewayOf(size_t request) const {
  return static_cast<int>(request % gateways_.size());
}

void SimulatedFleet::Arrive(size_t request) {
  Gateway& gateway = gateways_[static_cast<size_t>(GatewayOf(request))];
  const TraceRequest& wanted = trace_[request];
  gateway::AdmissionRequest admission;
  admission.tenant = StrCat("tenant-", wanted.tenant);
  const auto tenant = static_cast<size_t>(wanted.tenant);
  if (tenant < options_.tenant_weights.size()) {
    admission.weight = options_.tenant_weights[tenant];
  }
  admission.priority = wanted.priority;
  // Nobody knows how long an output will be; it is settled at the end.
  admission.cost = static_cast<double>(wanted.prompt->size()) + kExpectedOutput;
  const auto ticket = gateway.limiter.Enqueue(admission, time_.Now());
  if (!ticket.ok()) {
    outcomes_[request].refused = true;
    ++ended_;
    return;
  }
  running_[request].ticket = *ticket;
  gateway.queued.emplace(*ticket, request);
  StartAdmitted(GatewayOf(request));
}

void SimulatedFleet::StartAdmitted(int gateway_index) {
  Gateway& gateway = gateways_[static_cast<size_t>(gateway_index)];
  for (const gateway::TicketId id : gateway.limiter.Start(time_.Now())) {
    const size_t request = gateway.queued.at(id);
    gateway.queued.erase(id);
    outcomes_[request].over_share = gateway.limiter.over_share(id);
    outcomes_[request].start = time_.elapsed();
    Place(request);
  }
}

std::optional<int> SimulatedFleet::RouterOf(Gateway& gateway) {
  for (size_t tried = 0; tried < routers_.size(); ++tried) {
    if (routers_[static_cast<size_t>(gateway.router)].alive) {
      return gateway.router;
    }
    gateway.router = (gateway.router + 1) % static_cast<int>(routers_.size());
  }
  return std::nullopt;
}

router::PlaceQuery SimulatedFleet::QueryOf(size_t request) {
  const TraceRequest& wanted = trace_[request];
  router::PlaceQuery query;
  query.model = kModel;
  query.prompt_tokens = static_cast<int32_t>(wanted.prompt->size()) +
                        outcomes_[request].output_tokens;
  query.expected_output_tokens =
      wanted.output_tokens - outcomes_[request].output_tokens;
  query.priority = wanted.priority;
  query.chains.push_back(kv::HashChain(Root(), *wanted.prompt));
  query.excluded_worker_ids = running_[request].excluded;
  return query;
}

void SimulatedFleet::Place(size_t request) {
  time_.After(options_.network, [this, request] {
    Gateway& gateway = gateways_[static_cast<size_t>(GatewayOf(request))];
    const std::optional<int> router = RouterOf(gateway);
    if (!router) return PlaceLater(request);
    const auto placements =
        routers_[static_cast<size_t>(*router)].placer->Place(QueryOf(request));
    if (!placements.ok()) return PlaceLater(request);
    OnPlaced(request, *router, placements->front());
  });
}

void SimulatedFleet::PlaceLater(size_t request) {
  running_[request].excluded.clear();
  time_.After(kPlaceAgain, [this, request] { Place(request); });
}

void SimulatedFleet::OnPlaced(size_t request, int router,
                              const router::Placement& placement) {
  const int worker = WorkerIndex(placement.replica.worker_id);
  ++outcomes_[request].placements;
  gateways_[static_cast<size_t>(GatewayOf(request))].limiter.OnPlaced(
      placement.replica.worker_id, time_.Now());
  result_.placements.push_back({time_.elapsed(), router, worker});
  // The answer to the gateway and the submit to the worker.
  time_.After(options_.network * 2,
              [this, request, worker] { Submit(request, worker); });
}

void SimulatedFleet::Submit(size_t request, int index) {
  const TraceRequest& wanted = trace_[request];
  Worker& worker = workers_[static_cast<size_t>(index)];
  Running& running = running_[request];
  worker::GroupRequest group;
  group.id = next_group_++;
  group.priority = wanted.priority;
  group.over_share = outcomes_[request].over_share;
  group.prompt = wanted.prompt;
  worker::ChoiceStart& choice = group.choices.emplace_back();
  choice.output.assign(static_cast<size_t>(outcomes_[request].output_tokens),
                       0);
  group.stop.max_tokens = wanted.output_tokens;
  running.worker = index;
  running.group = group.id;
  request_of_[group.id] = request;
  worker.groups.push_back(group.id);
  if (worker.silent) {
    // A dead one refuses at once, a silent one takes it and says nothing.
    const absl::Duration notice = options_.heartbeat * kDeadAfterBeats;
    time_.After(notice, [this, index] { LoseStreams(index); });
    return;
  }
  if (worker.engine->Submit(std::move(group)).ok()) return;
  LeaveWorker(request);
  running.excluded.push_back(WorkerName(index));
  Place(request);
}

void SimulatedFleet::OnToken(const worker::TokenEvent& event) {
  const auto it = request_of_.find(event.group);
  if (it == request_of_.end()) return;
  const size_t request = it->second;
  Outcome& outcome = outcomes_[request];
  if (event.position != outcome.output_tokens) std::abort();  // lost, doubled
  if (outcome.output_tokens++ > 0) return;
  outcome.first_token = time_.elapsed() + options_.network;
  const int gateway = GatewayOf(request);
  gateways_[static_cast<size_t>(gateway)].limiter.OnFirstToken(
      running_[request].ticket, time_.Now());
  StartAdmitted(gateway);
}

void SimulatedFleet::OnFinish(const worker::FinishEvent& event, int) {
  const auto it = request_of_.find(event.group);
  if (it == request_of_.end()) return;
  const size_t request = it->second;
  LeaveWorker(request);
  End(request);
}

void SimulatedFleet::LeaveWorker(size_t request) {
  Running& running = running_[request];
  std::erase(workers_[static_cast<size_t>(running.worker)].groups,
             running.group);
  request_of_.erase(running.group);
  running.worker = -1;
}

void SimulatedFleet::End(size_t request) {
  Outcome& outcome = outcomes_[request];
  outcome.end = time_.elapsed() + options_.network;
  gateway::Limiter& limiter =
      gateways_[static_cast<size_t>(GatewayOf(request))].limiter;
  const gateway::TicketId ticket = running_[request].ticket;
  const auto prompt = static_cast<double>(trace_[request].prompt->size());
  limiter.Settle(ticket, prompt + outcome.output_tokens, time_.Now());
  limiter.Release(ticket);
  ++ended_;
}

// --- Housekeeping ------------------------------------------------------------

void SimulatedFleet::TickRouters() {
  for (Router& router : routers_) {
    if (router.alive) (void)router.placer->Tick();
  }
  if (!AllEnded()) time_.After(kRouterTick, [this] { TickRouters(); });
}

void SimulatedFleet::SampleLoad() {
  LoadSample sample;
  sample.at = time_.elapsed();
  int alive = 0;
  for (const Worker& worker : workers_) {
    if (worker.silent) continue;
    ++alive;
    const auto load = static_cast<double>(worker.groups.size());
    sample.mean += load;
    sample.max = std::max(sample.max, load);
  }
  sample.mean /= std::max(alive, 1);
  result_.loads.push_back(sample);
  if (!AllEnded()) {
    time_.After(options_.load_sample, [this] { SampleLoad(); });
  }
}

// --- Figures -----------------------------------------------------------------

namespace {

TtftFigures FiguresOf(std::vector<double> seconds) {
  TtftFigures figures;
  if (seconds.empty()) return figures;
  std::sort(seconds.begin(), seconds.end());
  const auto at = [&](double share) {
    return seconds[static_cast<size_t>(
        share * static_cast<double>(seconds.size() - 1))];
  };
  figures.count = static_cast<int>(seconds.size());
  figures.mean = std::accumulate(seconds.begin(), seconds.end(), 0.0) /
                 static_cast<double>(seconds.size());
  figures.p50 = at(0.5);
  figures.p90 = at(0.9);
  figures.p99 = at(0.99);
  return figures;
}

}  // namespace

TtftFigures FiguresOf(const std::vector<Outcome>& outcomes,
                      const std::function<bool(const Outcome&)>& passes) {
  std::vector<double> seconds;
  for (const Outcome& outcome : outcomes) {
    if (outcome.first_token < absl::InfiniteDuration() && passes(outcome)) {
      seconds.push_back(absl::ToDoubleSeconds(outcome.ttft()));
    }
  }
  return FiguresOf(std::move(seconds));
}

TtftFigures CompletionFiguresOf(
    const std::vector<Outcome>& outcomes,
    const std::function<bool(const Outcome&)>& passes) {
  std::vector<double> seconds;
  for (const Outcome& outcome : outcomes) {
    if (outcome.finished() && passes(outcome)) {
      seconds.push_back(absl::ToDoubleSeconds(outcome.end - outcome.arrival));
    }
  }
  return FiguresOf(std::move(seconds));
}

double IdealCapacity(const FleetOptions& options,
                     const std::vector<TraceRequest>& trace) {
  // A busy worker's decode steps carry about half of what it may run.
  const double rows = options.engine.max_running / 2.0;
  double seconds = 0;
  for (const TraceRequest& request : trace) {
    const auto prompt = static_cast<double>(request.prompt->size());
    const StepWork decode = {
        .decode_rows = rows,
        .kv_tokens = rows * (prompt + request.output_tokens / 2.0)};
    seconds += (prompt - request.shared_tokens) /
               options.cost.prefill_tokens_per_second();
    seconds += options.cost.Seconds(decode) / rows * request.output_tokens;
  }
  return options.workers * static_cast<double>(trace.size()) / seconds;
}

}  // namespace caravan::simulation
