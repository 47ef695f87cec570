// Keeps the worker registered with every router: one stream to each address
// behind each given name, for as long as the worker lives.
#ifndef CARAVAN_WORKER_SERVER_REGISTRATION_CLIENT_H_
#define CARAVAN_WORKER_SERVER_REGISTRATION_CLIENT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/grpc/channel.h"
#include "worker/server/router_link_client.h"

namespace caravan::worker {

struct RegistrationOptions {
  // HOST:PORT; a name may stand for several routers.
  std::vector<std::string> routers;
  // With TLS a name is verified, so it is not split into addresses: its one
  // stream goes to the address that gRPC picks.
  ChannelOptions channel;
  // Time between two looks at what a name stands for.
  absl::Duration resolve_interval = absl::Seconds(5);
  // Least time between two KV events.
  absl::Duration event_interval = absl::Milliseconds(20);
  // Gives all addresses of a name. May wait: it has a thread of its own.
  std::function<absl::StatusOr<std::vector<std::string>>(const std::string&)>
      resolve;
};

// Thread-safe.
class RegistrationClient final : public KvEventListener {
 public:
  // What `context` points to must outlive the client.
  static absl::StatusOr<std::unique_ptr<RegistrationClient>> Start(
      RegistrationOptions options, const RegistrationContext& context,
      const Clock* clock);
  // Ends the streams.
  ~RegistrationClient() override;

  // Tells every router at once that no placements are wanted any more.
  void StartDrain();

  void NotifyEvents() override { Wake(); }

  // Links whose registration counts.
  int32_t registered_count() const;

 private:
  RegistrationClient(RegistrationOptions options,
                     const RegistrationContext& context, const Clock* clock);

  void Run(std::stop_token stop);
  void RunResolver(std::stop_token stop);
  void Resolve(const std::string& router);
  // Numbers what waits, unless it is too early; returns when it will not be.
  absl::Time FlushEvents(absl::Time now);
  absl::Time AdvanceLinks(absl::Time now);
  // Makes the links those of the addresses that were resolved last.
  void UpdateLinks();
  void AddLink(const std::string& address);
  bool draining() const;
  void Wake();
  void Sleep(absl::Time now, absl::Time until);
  bool WokenLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return woken_;
  }
  bool StoppingLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_;
  }

  const RegistrationOptions options_;
  const RegistrationContext context_;
  const Clock* const clock_;

  mutable absl::Mutex mutex_;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  int32_t registered_count_ ABSL_GUARDED_BY(mutex_) = 0;
  // By router as given.
  std::map<std::string, std::vector<std::string>> resolved_
      ABSL_GUARDED_BY(mutex_);

  std::map<std::string, std::unique_ptr<RouterLink>> links_;  // Run's
  absl::Time next_flush_ = absl::InfinitePast();              // Run's

  std::jthread resolver_;
  std::jthread thread_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_REGISTRATION_CLIENT_H_
