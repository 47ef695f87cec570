// A fleet under a virtual clock: real placers (registry, index, breakers,
// policy), real engines, real admission; simulated are the clients, the time
// that a step takes, and the network.
//
//   client -> gateway: Limiter -> router: Placer -> worker: Engine
//
// A router knows of workers what heartbeats and KV events tell it, late as on
// a wire, and of other routers nothing. A gateway whose stream breaks places
// it again with the output so far.
//
// Not thread-safe. Everything is a function of the options and the trace.
#ifndef CARAVAN_TESTS_SIMULATION_SIMULATED_FLEET_H_
#define CARAVAN_TESTS_SIMULATION_SIMULATED_FLEET_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "gateway/admission/limiter.h"
#include "services/router/placer.h"
#include "services/router/policy.h"
#include "tests/simulation/fleet_trace.h"
#include "tests/simulation/simulated_worker.h"
#include "tests/simulation/step_cost.h"
#include "tests/simulation/virtual_time.h"
#include "worker/engine/engine.h"

namespace caravan::simulation {

enum class FaultKind {
  kKillWorker,     // its streams break, its routers see it go
  kSilenceWorker,  // it computes and says nothing more; connections stand
  kRestartWorker,  // in a new epoch, with an empty cache
  kKillRouter,     // gateways ask the next one
};

struct Fault {
  absl::Duration at;
  FaultKind kind = FaultKind::kKillWorker;
  int index = 0;
};

using PolicyMaker =
    std::function<std::unique_ptr<router::Policy>(uint64_t seed)>;

struct FleetOptions {
  int workers = 16;
  int routers = 1;
  int gateways = 4;
  double requests_per_second = 1;
  uint64_t seed = 1;  // of phases and of policies
  PolicyMaker policy;
  StepCost cost = StepCost::Measured();
  worker::EngineOptions engine = DefaultEngine();
  router::PlacerOptions placer;
  gateway::LimiterOptions limiter;
  std::vector<double> tenant_weights;  // by tenant; 1 where it has none
  std::vector<Fault> faults;
  absl::Duration network = absl::Microseconds(500);  // each way
  absl::Duration heartbeat = absl::Milliseconds(500);
  absl::Duration load_sample = absl::Milliseconds(250);

  static worker::EngineOptions DefaultEngine();
};

// What became of a request of the trace.
struct Outcome {
  absl::Duration arrival;
  absl::Duration start = absl::InfiniteDuration();  // left the gateway's queue
  absl::Duration first_token = absl::InfiniteDuration();
  absl::Duration end = absl::InfiniteDuration();
  int32_t tenant = 0;
  int32_t output_tokens = 0;  // received, each position once
  int placements = 0;
  bool over_share = false;  // as its worker was told
  bool refused = false;     // by admission
  absl::Duration retry_after;

  absl::Duration ttft() const { return first_token - arrival; }
  bool finished() const { return end < absl::InfiniteDuration(); }
};

struct PlacementNote {
  absl::Duration at;
  int router = 0;
  int worker = 0;
};

// Sequences at workers, over those that live.
struct LoadSample {
  absl::Duration at;
  double mean = 0;
  double max = 0;
};

struct FleetResult {
  std::vector<Outcome> outcomes;  // as in the trace
  std::vector<PlacementNote> placements;
  std::vector<LoadSample> loads;
  int64_t steps = 0;
  int64_t prefill_tokens = 0;  // computed
  int64_t cached_tokens = 0;   // found in prefix caches
  double busy_share = 0;       // of the workers' time
};

class SimulatedFleet {
 public:
  SimulatedFleet(const FleetOptions& options,
                 const std::vector<TraceRequest>& trace);
  ~SimulatedFleet();

  // Until every request has ended.
  FleetResult Run();

 private:
  struct Worker {
    std::unique_ptr<SimulatedWorker> engine;
    int64_t stream = 0;  // to the routers; another in each life
    uint64_t epoch = 0;
    int64_t kv_sequence = 0;
    bool silent = false;
    std::vector<worker::GroupId> groups;  // that run there
  };
  struct Router {
    std::unique_ptr<router::Placer> placer;
    bool alive = true;
  };
  struct Gateway {
    explicit Gateway(const gateway::LimiterOptions& options)
        : limiter(options) {}
    gateway::Limiter limiter;
    absl::flat_hash_map<gateway::TicketId, size_t> queued;  // request
    int router = 0;
  };
  struct Running {
    gateway::TicketId ticket = 0;
    int worker = -1;
    worker::GroupId group = 0;
    std::vector<std::string> excluded;
  };

  // Workers.
  void StartWorker(int index);
  void Register(int index);
  void Beat(int index, int64_t stream);
  void BeatOnce(int index);
  void OnReport(int index, const worker::StepReport& report);
  void OnQueueNews(const worker::QueueNews& news);
  void SendKvChanges(int index, const worker::KvChanges& changes);
  void Apply(const Fault& fault);
  void KillWorker(int index);
  void LoseStreams(int index);

  // Requests.
  int GatewayOf(size_t request) const;
  void Arrive(size_t request);
  void StartAdmitted(int gateway);
  void Place(size_t request);
  void OnPlaced(size_t request, int router, const router::Placement& placement);
  void Submit(size_t request, int worker);
  void PlaceLater(size_t request);
  void OnToken(const worker::TokenEvent& event);
  void OnFinish(const worker::FinishEvent& event, int worker);
  void LeaveWorker(size_t request);
  void End(size_t request);
  router::PlaceQuery QueryOf(size_t request);
  std::optional<int> RouterOf(Gateway& gateway);

  void TickRouters();
  void SampleLoad();
  bool AllEnded() const { return ended_ == outcomes_.size(); }

  const FleetOptions options_;
  const std::vector<TraceRequest>& trace_;
  VirtualTime time_;
  TraceRandom random_;
  std::vector<Worker> workers_;
  std::vector<std::unique_ptr<SimulatedWorker>> graveyard_;
  std::vector<Router> routers_;
  std::vector<Gateway> gateways_;
  std::vector<Running> running_;   // by request
  std::vector<Outcome> outcomes_;  // by request
  absl::flat_hash_map<worker::GroupId, size_t> request_of_;
  worker::GroupId next_group_ = 1;
  int64_t next_stream_ = 1;
  size_t ended_ = 0;
  FleetResult result_;
};

// --- Figures -----------------------------------------------------------------

struct TtftFigures {
  int count = 0;
  double mean = 0;  // seconds
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
};

// Of the outcomes that pass, those with a first token.
TtftFigures FiguresOf(const std::vector<Outcome>& outcomes,
                      const std::function<bool(const Outcome&)>& passes);
// The same of the time from arrival to end, of those that have ended.
TtftFigures CompletionFiguresOf(
    const std::vector<Outcome>& outcomes,
    const std::function<bool(const Outcome&)>& passes);

// Requests per second that `workers` can take at most, were every shared part
// in every cache: prefill and decode time by the cost model, with as many
// sequences at a time as prefill lets decode beside it.
double IdealCapacity(const FleetOptions& options,
                     const std::vector<TraceRequest>& trace);

}  // namespace caravan::simulation

#endif  // CARAVAN_TESTS_SIMULATION_SIMULATED_FLEET_H_
