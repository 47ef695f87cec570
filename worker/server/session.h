// The worker's side of one gateway's stream, without the stream: what each
// message means, which handles are open, what is told back.
#ifndef CARAVAN_WORKER_SERVER_SESSION_H_
#define CARAVAN_WORKER_SERVER_SESSION_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "caravan/v1/worker.pb.h"
#include "common/clock.h"
#include "worker/engine/engine.h"
#include "worker/server/handle_set.h"
#include "worker/server/load_meter.h"
#include "worker/server/step_dispatcher.h"
#include "worker/server/submit_validation.h"
#include "worker/server/worker_facts.h"

namespace caravan::worker {

// How often each session hears something.
inline constexpr absl::Duration kSessionHeartbeat = absl::Milliseconds(500);

// What sessions stand on; all of it outlives them.
struct SessionContext {
  const WorkerFacts* facts = nullptr;
  SubmitLimits limits;
  Engine* engine = nullptr;
  StepDispatcher* dispatcher = nullptr;
  const LoadMeter* load = nullptr;
  RequestObserver* observer = nullptr;
  const Clock* clock = nullptr;
};

// Where a session's messages go.
class SessionTransport {
 public:
  virtual ~SessionTransport() = default;
  // Queues a message; must not block. Drops it when the stream is over.
  virtual void Send(v1::SessionResponse response) = 0;
};

// Thread-safe: the transport calls OnMessage (one at a time) and Close, the
// engine thread Deliver.
class Session final : public StepReceiver,
                      public std::enable_shared_from_this<Session> {
 public:
  // `transport` is used until Close or Detach.
  Session(const SessionContext* context, SessionTransport* transport)
      : context_(context), transport_(transport) {}

  // Sends hello.
  void Open();

  // Takes one message. Failures of a handle are told under it; an error is one
  // of the link, which must end with it: kProtocolMismatch, or kInvalidField
  // where hello is missing, comes twice, or no kind is set.
  absl::Status OnMessage(const v1::SessionRequest& request);

  // Tells the gateway to move its streams.
  void SendDraining(absl::Duration grace);

  // A sign of life.
  void SendHeartbeat();

  // Cancels what is open. Nothing is sent any more.
  void Close();

  void Deliver(v1::StepOutput output,
               const std::vector<uint64_t>& ended) override;

 private:
  absl::Status OnHello(const v1::Hello& hello);
  void OnSubmit(const v1::Submit& submit);
  void OnCancel(const v1::Cancel& cancel);
  void CancelGroup(uint64_t handle, GroupId group);
  void CancelChoices(uint64_t handle, GroupId group,
                     std::span<const int32_t> choices);

  // Reserves the handle of a submit for `group`.
  absl::Status Claim(uint64_t handle, GroupId group);
  absl::Status Start(const v1::Submit& submit, GroupId group);
  void Forget(uint64_t handle);
  bool closed() const;
  void SendError(uint64_t handle, const absl::Status& status);
  void Send(v1::SessionResponse response);

  const SessionContext* const context_;
  bool greeted_ = false;  // by OnMessage only
  std::string peer_id_;   // by OnMessage only
  mutable absl::Mutex mutex_;
  SessionTransport* transport_ ABSL_GUARDED_BY(mutex_);  // null: closed
  HandleSet used_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, GroupId> open_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_SESSION_H_
