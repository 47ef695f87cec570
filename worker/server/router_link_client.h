// One Register stream to one router: hello, registration, heartbeats, KV
// events; again after a pause when it breaks.
#ifndef CARAVAN_WORKER_SERVER_ROUTER_LINK_CLIENT_H_
#define CARAVAN_WORKER_SERVER_ROUTER_LINK_CLIENT_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "caravan/v1/router.grpc.pb.h"
#include "worker/server/kv_event_feed.h"
#include "worker/server/load_meter.h"
#include "worker/server/worker_facts.h"

namespace caravan::worker {

// What all links of a worker tell.
struct RegistrationContext {
  const WorkerFacts* facts = nullptr;
  const LoadMeter* load = nullptr;
  KvEventFeed* feed = nullptr;
};

// Not thread-safe: the registration thread's. `wake` is called from other
// threads when Advance has something new to do.
class RouterLink {
 public:
  RouterLink(std::string address, std::shared_ptr<grpc::Channel> channel,
             const RegistrationContext& context, std::function<void()> wake);
  // Cancels the stream and waits until it is gone.
  ~RouterLink();

  // Does what is due and returns when something will be due again.
  absl::Time Advance(absl::Time now, bool draining);

  const std::string& address() const { return address_; }
  bool registered() const { return registered_; }

 private:
  class Stream;

  void Connect();
  void Read(absl::Time now);
  void OnResponse(const v1::RegisterResponse& response, absl::Time now);
  void OnHello(const v1::Hello& hello);
  void OnRegistered(const v1::Registered& registered, absl::Time now);
  // Ends the stream and tries again after the longest pause.
  void GiveUp(std::string_view event, const absl::Status& status);
  void OnBroken(const absl::Status& status, absl::Time now);
  void SendHeartbeat(absl::Time now, bool draining);
  void SendEvents();

  const std::string address_;
  const RegistrationContext context_;
  const std::function<void()> wake_;
  const std::unique_ptr<v1::RouterService::Stub> stub_;
  absl::InsecureBitGen jitter_;

  std::shared_ptr<Stream> stream_;  // null: between two
  bool registered_ = false;
  bool unreachable_logged_ = false;
  absl::Duration backoff_;
  absl::Time retry_at_ = absl::InfinitePast();
  absl::Duration heartbeat_interval_;
  absl::Time next_heartbeat_ = absl::InfinitePast();
  bool told_draining_ = false;
  // Number of the last KV event sent; nothing: a snapshot is due.
  std::optional<int64_t> last_event_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_ROUTER_LINK_CLIENT_H_
