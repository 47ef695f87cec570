// A worker that serves: engine, sessions, registration, metrics around one
// model runner. Knows nothing of models or devices.
#ifndef CARAVAN_WORKER_SERVER_WORKER_SERVER_H_
#define CARAVAN_WORKER_SERVER_WORKER_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/grpc/server.h"
#include "common/metrics/registry.h"
#include "worker/engine/engine.h"
#include "worker/engine/model_runner.h"
#include "worker/server/kv_event_feed.h"
#include "worker/server/load_meter.h"
#include "worker/server/registration_client.h"
#include "worker/server/reserved_service.h"
#include "worker/server/step_dispatcher.h"
#include "worker/server/vllm_metrics.h"
#include "worker/server/worker_facts.h"
#include "worker/server/worker_metrics.h"
#include "worker/server/worker_service.h"
#include "worker/server/worker_sink.h"

namespace caravan::worker {

struct WorkerServerOptions {
  ServerOptions server;
  // HOST or HOST:PORT that gateways reach; empty: as bound. Without a port, or
  // with port 0, the one that is bound.
  std::string advertise;
  RegistrationOptions registration;  // without routers: not registered
  EngineOptions engine;
  size_t session_backlog_bytes = 16 << 20;
};

// Thread-safe.
class WorkerServer {
 public:
  // Serves until Drain. `facts` lacks worker_id and address, which follow from
  // the port. `runner`, `registry` and `clock` must outlive the server;
  // `on_lost` is called once, on the engine thread, when the runner is lost:
  // every group has then failed with kWorkerLost.
  static absl::StatusOr<std::unique_ptr<WorkerServer>> Start(
      WorkerServerOptions options, WorkerFacts facts, ModelRunner* runner,
      MetricsRegistry* registry, const Clock* clock,
      std::function<void()> on_lost);

  // Ends everything at once: groups are dropped.
  ~WorkerServer();

  // Refuses new groups and lets running ones finish for up to `grace`; then
  // ends sessions, server, engine and registration. Returns the runner's error
  // if it was lost, kDraining naming how many groups were cut off, or OK.
  absl::Status Drain(absl::Duration grace);

  int port() const { return grpc_->port(); }
  const WorkerFacts& facts() const { return facts_; }
  int32_t registered_count() const;
  WorkerMetrics& metrics() { return metrics_; }

 private:
  WorkerServer(WorkerServerOptions options, WorkerFacts facts,
               MetricsRegistry* registry, const Clock* clock,
               std::function<void()> on_lost);

  absl::Status StartEngine(ModelRunner* runner);
  absl::Status StartServing();
  absl::Status StartRegistration();
  void SetAddress(int port);
  void RunEngine();
  void RunHousekeeping();
  void StopThreads();
  absl::Status engine_status() const;
  bool StoppingLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_;
  }

  const WorkerServerOptions options_;
  WorkerFacts facts_;  // const once the port is known
  const Clock* const clock_;
  const std::function<void()> on_lost_;

  // What the engine reports to.
  WorkerMetrics metrics_;
  VllmMetrics vllm_;
  MetricsObserver observer_;
  LoadMeter load_;
  KvEventFeed feed_;
  StepDispatcher dispatcher_;
  WorkerSink sink_;
  std::unique_ptr<Engine> engine_;

  // What gateways and routers talk to.
  std::unique_ptr<WorkerService> service_;
  ReservedStageService stage_service_;
  ReservedKvService kv_service_;
  std::unique_ptr<GrpcServer> grpc_;
  std::unique_ptr<RegistrationClient> registration_;

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status engine_status_ ABSL_GUARDED_BY(mutex_);
  std::jthread engine_thread_;
  std::jthread housekeeping_thread_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_WORKER_SERVER_H_
