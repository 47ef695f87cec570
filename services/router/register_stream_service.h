// One Register stream: the reactor that reads what a replica tells and writes
// what the router answers. Deletes itself when gRPC is done with it.
#ifndef CARAVAN_SERVICES_ROUTER_REGISTER_STREAM_SERVICE_H_
#define CARAVAN_SERVICES_ROUTER_REGISTER_STREAM_SERVICE_H_

#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "caravan/v1/router.pb.h"

namespace caravan::router {

class RouterService;

// Thread-safe.
class RegisterStream final
    : public grpc::ServerBidiReactor<v1::RegisterRequest,
                                     v1::RegisterResponse> {
 public:
  // Answers that a replica may leave unread.
  static constexpr size_t kMaxUnsent = 64;

  RegisterStream(RouterService* service, grpc::CallbackServerContext* context,
                 int64_t id)
      : service_(service), context_(context), id_(id) {}

  int64_t id() const { return id_; }

  // Begins to read. Apart from the constructor, so that a stream which is
  // refused at once never reads.
  void Begin() { StartRead(&request_); }

  // Ends the stream with `status` when what waits has been sent. The first
  // status counts.
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mutex_);
  void OnCancel() override;
  void OnDone() override;

 private:
  absl::Status Handle(const v1::RegisterRequest& request);
  absl::Status HandleHello(const v1::Hello& hello);
  absl::Status HandleRegistration(const v1::Registration& registration);
  absl::Status HandleKvEvents(const v1::KvEvents& events);
  void Send(v1::RegisterResponse response) ABSL_LOCKS_EXCLUDED(mutex_);
  void FinishWhenSent() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  RouterService* const service_;
  grpc::CallbackServerContext* const context_;
  const int64_t id_;
  v1::RegisterRequest request_;  // of the read under way
  // Owned by the reads, of which there is one at a time.
  bool greeted_ = false;
  bool registered_ = false;

  absl::Mutex mutex_;
  // The first is being written.
  std::deque<v1::RegisterResponse> outbox_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_REGISTER_STREAM_SERVICE_H_
