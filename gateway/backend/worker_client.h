// The gateway's side of the sessions with workers: one bidirectional stream
// per worker, shared by all requests.
#ifndef CARAVAN_GATEWAY_BACKEND_WORKER_CLIENT_H_
#define CARAVAN_GATEWAY_BACKEND_WORKER_CLIENT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "caravan/v1/worker.pb.h"
#include "common/grpc/channel.h"
#include "gateway/stream/inbox.h"

namespace caravan::gateway {

// One session. Ends once; a new one is made for the next submit.
//
// Thread-safe.
class WorkerSession {
 public:
  virtual ~WorkerSession() = default;

  // Sends a submit; its events go to `inbox`. False when the session is over:
  // nothing was sent and nothing will be pushed.
  [[nodiscard]] virtual bool Submit(v1::Submit submit,
                                    std::shared_ptr<Inbox> inbox) = 0;

  // Nothing more of the handle is pushed, and the worker ends it. Ignored for
  // handles that have ended.
  virtual void Cancel(uint64_t handle) = 0;

  // The same for choices of the handle; the others go on. Of these choices
  // something may still be pushed: always where the worker cannot end single
  // choices, which then run on.
  virtual void CancelChoices(uint64_t handle,
                             std::span<const int32_t> choices) = 0;

  // Neither over nor draining.
  virtual bool usable() const = 0;
  // Handles that have not ended.
  virtual int32_t open_count() const = 0;
};

// The sessions by address. A session whose worker has been silent for longer
// than it promised ends as if its connection were broken.
//
// Thread-safe.
class WorkerClient {
 public:
  // `sender_id` names this gateway to workers.
  WorkerClient(ChannelOptions options, std::string sender_id);
  ~WorkerClient();  // ends all sessions

  // The session with HOST:PORT; connects where there is none that lives. A
  // connection that fails is told to the handles that were submitted.
  absl::StatusOr<std::shared_ptr<WorkerSession>> Get(
      const std::string& address);

  // The session with HOST:PORT, if there is one that lives.
  std::shared_ptr<WorkerSession> Find(const std::string& address) const;

  // Never given twice.
  uint64_t NewHandle();

  // Ends all sessions and waits for their threads to let go.
  void Shutdown();

 private:
  struct Sessions;

  void RunTicks();

  const ChannelOptions options_;
  const std::string sender_id_;
  mutable absl::Mutex mutex_;
  uint64_t next_handle_ ABSL_GUARDED_BY(mutex_) = 1;
  bool shut_down_ ABSL_GUARDED_BY(mutex_) = false;
  const std::unique_ptr<Sessions> sessions_ ABSL_PT_GUARDED_BY(mutex_);
  std::jthread ticker_;  // last: it uses all of the above
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_BACKEND_WORKER_CLIENT_H_
