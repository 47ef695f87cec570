// WorkerService over gRPC: one reactor per session, with an outbox that ends
// the session of whoever does not read.
#ifndef CARAVAN_WORKER_SERVER_WORKER_SERVICE_H_
#define CARAVAN_WORKER_SERVER_WORKER_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "caravan/v1/worker.grpc.pb.h"
#include "worker/server/session.h"

namespace caravan::worker {

// Thread-safe. The gRPC server must be down before the service goes.
class WorkerService final : public v1::WorkerService::CallbackService {
 public:
  // A session with more than `max_outbox_bytes` of unsent messages ends.
  WorkerService(const SessionContext& context, size_t max_outbox_bytes)
      : context_(context), max_outbox_bytes_(max_outbox_bytes) {}

  grpc::ServerBidiReactor<v1::SessionRequest, v1::SessionResponse>* Session(
      grpc::CallbackServerContext* call) override;
  grpc::ServerUnaryReactor* GetWorkerInfo(
      grpc::CallbackServerContext* call,
      const v1::GetWorkerInfoRequest* request,
      v1::GetWorkerInfoResponse* response) override;

  // Tells every session, and those that still come, that streams have `grace`
  // left.
  void StartDrain(absl::Duration grace);

  // Gives every session a sign of life.
  void SendHeartbeats();

  // Ends every session with `status` once its outbox is sent.
  void EndSessions(const absl::Status& status);

  int64_t session_count() const;

 private:
  class SessionReactor;

  void Add(SessionReactor* reactor);
  void Remove(SessionReactor* reactor);
  bool draining() const;

  const SessionContext context_;
  const size_t max_outbox_bytes_;
  mutable absl::Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration grace_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<SessionReactor*> sessions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_WORKER_SERVICE_H_
