#include "services/router/router_service.h"

#include <utility>

#include "absl/time/time.h"
#include "common/build_info.h"
#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "services/router/wire.h"

namespace caravan::router {
namespace {

absl::Status DrainingError(absl::Duration retry_after) {
  return WithRetryAfter(
      MakeError(Reason::kDraining, "this router shuts down; ask another"),
      retry_after);
}

v1::Target ToTarget(const Placement& placement) {
  v1::Target target;
  target.set_worker_id(placement.replica.worker_id);
  target.set_address(placement.replica.address);
  target.set_epoch(placement.replica.epoch);
  target.set_role(v1::TARGET_ROLE_WHOLE);
  target.set_matched_block_count(placement.matched_blocks);
  *target.mutable_model() = placement.replica.registration->model();
  return target;
}

}  // namespace

RouterService::RouterService(const RouterServiceOptions& options,
                             const Clock* clock, MetricsRegistry* registry,
                             std::unique_ptr<Policy> policy)
    : options_(options),
      clock_(clock),
      metrics_(registry, policy->name()),
      placer_(options.placer, clock, std::move(policy)) {}

// --- Place -----------------------------------------------------------------

grpc::ServerUnaryReactor* RouterService::Place(
    grpc::CallbackServerContext* context, const v1::PlaceRequest* request,
    v1::PlaceResponse* response) {
  const absl::Time start = clock_->Now();
  const absl::Status status = PlaceRequested(*request, response);
  metrics_.RecordPlacement(status, clock_->Now() - start);
  if (!status.ok()) {
    LogDebug("placement_failed", {{"request_id", request->request_id()},
                                  {"tenant", request->tenant()},
                                  {"priority", request->priority()},
                                  {"status", status}});
  }
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

absl::Status RouterService::PlaceRequested(const v1::PlaceRequest& request,
                                           v1::PlaceResponse* response) {
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<Placement> placements,
                           PlaceLocked(request));
  const Placement& first = placements.front();
  metrics_.RecordMatch(first.matched_blocks, first.replica.block_size,
                       request.prompt_token_count());
  for (const Placement& placement : placements) {
    *response->add_targets() = ToTarget(placement);
  }
  LogDebug("placed", {{"request_id", request.request_id()},
                      {"tenant", request.tenant()},
                      {"priority", request.priority()},
                      {"worker_id", first.replica.worker_id},
                      {"matched_blocks", first.matched_blocks}});
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Placement>> RouterService::PlaceLocked(
    const v1::PlaceRequest& request) {
  CARAVAN_ASSIGN_OR_RETURN(const PlaceQuery query, ToQuery(request));
  absl::MutexLock lock(&mutex_);
  if (draining_) return DrainingError(options_.placer.retry_after);
  return placer_.Place(query);
}

// --- Register --------------------------------------------------------------

grpc::ServerBidiReactor<v1::RegisterRequest, v1::RegisterResponse>*
RouterService::Register(grpc::CallbackServerContext* context) {
  absl::MutexLock lock(&mutex_);
  auto* const stream = new RegisterStream(this, context, ++last_stream_);
  streams_.insert(stream);
  if (draining_) {
    stream->End(DrainingError(options_.placer.retry_after));
  } else {
    stream->Begin();
  }
  return stream;
}

v1::Hello RouterService::MakeHello() const {
  v1::Hello hello;
  hello.set_least_revision(kLeastProtocolRevision);
  hello.set_greatest_revision(kGreatestProtocolRevision);
  hello.set_build(std::string(BuildId()));
  hello.set_sender_id(options_.sender_id);
  return hello;
}

absl::Status RouterService::HandleRegistration(
    int64_t stream, const v1::Registration& registration) {
  const ReplicaInfo info = ToReplicaInfo(registration);
  absl::StatusOr<WorkerRegistry::Registered> registered;
  {
    absl::MutexLock lock(&mutex_);
    registered = placer_.Register(stream, info);
    UpdateGauges();
  }
  if (!registered.ok()) {
    RecordRefusal(info.worker_id, registered.status());
    return registered.status();
  }
  metrics_.registrations().Increment();
  LogInfo("worker_registered",
          {{"worker_id", info.worker_id},
           {"address", info.address},
           {"model", info.model},
           {"numerics_class", info.identity.numerics_class},
           {"epoch", info.epoch}});
  return absl::OkStatus();
}

absl::Status RouterService::HandleHeartbeat(int64_t stream,
                                            const v1::Heartbeat& heartbeat) {
  absl::MutexLock lock(&mutex_);
  return placer_.Heartbeat(stream, ToReplicaLoad(heartbeat.load()),
                           heartbeat.draining());
}

std::optional<int64_t> RouterService::HandleKvChange(int64_t stream,
                                                     const KvChange& change) {
  absl::MutexLock lock(&mutex_);
  if (placer_.ApplyKvChange(stream, change) !=
      BlockIndex::Applied::kSnapshotWanted) {
    return std::nullopt;
  }
  metrics_.snapshot_requests().Increment();
  return placer_.LastSequenceNumber(stream);
}

void RouterService::RecordRefusal(const std::string& worker_id,
                                  const absl::Status& status) {
  metrics_.RecordRefusal(status);
  LogWarning("registration_refused",
             {{"worker_id", worker_id}, {"status", status}});
}

void RouterService::OnStreamDone(RegisterStream* stream) {
  absl::MutexLock lock(&mutex_);
  streams_.erase(stream);
  if (const std::optional<std::string> worker_id =
          placer_.Disconnect(stream->id())) {
    LogInfo("worker_stream_ended", {{"worker_id", *worker_id}});
  }
  UpdateGauges();
}

// --- ListWorkers -----------------------------------------------------------

grpc::ServerUnaryReactor* RouterService::ListWorkers(
    grpc::CallbackServerContext* context, const v1::ListWorkersRequest* request,
    v1::ListWorkersResponse* response) {
  response->set_build(std::string(BuildId()));
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& replica : placer_.registry().replicas()) {
      if (request->model().empty() || request->model() == replica->info.model) {
        *response->add_workers() = MakeStatus(*replica);
      }
    }
  }
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

v1::WorkerStatus RouterService::MakeStatus(const Replica& replica) const {
  v1::WorkerStatus status;
  *status.mutable_registration() = *replica.info.registration;
  *status.mutable_load() = ToProto(replica.load, replica.info.block_count);
  status.set_state(ToProto(placer_.StateOf(replica)));
  *status.mutable_last_seen_age() = ToProto(clock_->Now() - replica.last_seen);
  status.set_indexed_block_count(
      placer_.index().CountOf(replica.info.worker_id));
  return status;
}

// --- Life ------------------------------------------------------------------

void RouterService::UpdateGauges() {
  metrics_.SetWorkers(placer_.CountByState());
  metrics_.SetIndex(placer_.index().entry_count(),
                    placer_.index().dropped_count());
}

void RouterService::Tick() {
  absl::MutexLock lock(&mutex_);
  for (const std::string& worker_id : placer_.Tick()) {
    metrics_.lost_workers().Increment();
    LogWarning("worker_lost", {{"worker_id", worker_id}});
  }
  UpdateGauges();
}

void RouterService::Drain() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  for (RegisterStream* const stream : streams_) {
    stream->End(DrainingError(options_.placer.retry_after));
  }
}

}  // namespace caravan::router
