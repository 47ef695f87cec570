// caravan.v1.RouterService over the placer, which it guards with one lock:
// placements take tens of microseconds, and nothing under the lock waits.
#ifndef CARAVAN_SERVICES_ROUTER_ROUTER_SERVICE_H_
#define CARAVAN_SERVICES_ROUTER_ROUTER_SERVICE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "caravan/v1/router.grpc.pb.h"
#include "common/clock.h"
#include "common/metrics/registry.h"
#include "services/router/placer.h"
#include "services/router/policy.h"
#include "services/router/register_stream_service.h"
#include "services/router/router_metrics.h"

namespace caravan::router {

struct RouterServiceOptions {
  PlacerOptions placer;
  std::string sender_id = "router";  // unique in the fleet; for hello
};

// Thread-safe.
class RouterService final : public v1::RouterService::CallbackService {
 public:
  // `clock` and `registry` must outlive the service.
  RouterService(const RouterServiceOptions& options, const Clock* clock,
                MetricsRegistry* registry, std::unique_ptr<Policy> policy);

  grpc::ServerUnaryReactor* Place(grpc::CallbackServerContext* context,
                                  const v1::PlaceRequest* request,
                                  v1::PlaceResponse* response) override;
  grpc::ServerBidiReactor<v1::RegisterRequest, v1::RegisterResponse>* Register(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* ListWorkers(
      grpc::CallbackServerContext* context,
      const v1::ListWorkersRequest* request,
      v1::ListWorkersResponse* response) override;

  // Removes dead replicas, updates gauges: several times a heartbeat.
  void Tick() ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends all Register streams and refuses what comes (kDraining).
  void Drain() ABSL_LOCKS_EXCLUDED(mutex_);

  // --- For RegisterStream --------------------------------------------------

  v1::Hello MakeHello() const;
  absl::Duration heartbeat_interval() const {
    return options_.placer.registry.heartbeat_interval;
  }
  absl::Status HandleRegistration(int64_t stream,
                                  const v1::Registration& registration)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status HandleHeartbeat(int64_t stream, const v1::Heartbeat& heartbeat)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The last number that was understood, where a snapshot is wanted.
  std::optional<int64_t> HandleKvChange(int64_t stream, const KvChange& change)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void RecordRefusal(const std::string& worker_id, const absl::Status& status);
  void OnStreamDone(RegisterStream* stream) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Status PlaceRequested(const v1::PlaceRequest& request,
                              v1::PlaceResponse* response)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::vector<Placement>> PlaceLocked(
      const v1::PlaceRequest& request) ABSL_LOCKS_EXCLUDED(mutex_);
  v1::WorkerStatus MakeStatus(const Replica& replica) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UpdateGauges() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const RouterServiceOptions options_;
  const Clock* const clock_;
  RouterMetrics metrics_;

  mutable absl::Mutex mutex_;
  Placer placer_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<RegisterStream*> streams_ ABSL_GUARDED_BY(mutex_);
  int64_t last_stream_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_ROUTER_SERVICE_H_
