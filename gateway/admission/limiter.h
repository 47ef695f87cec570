// Decides which requests start, and in which order: a bounded queue before a
// bounded number of requests that wait for their first token at workers.
//
// A request passes three states: queued here; starting (sent to a worker, no
// token yet); running (tokens come; the worker's scheduler bounds it).
//
// A tenant that asks for much more than others is over its share
// (share_meter.h). Requests of the others start as they come, as many as
// `max_starting` allows, and of one tenant no more than a window that keeps
// workers busy (start_window.h). Those over their share have one window
// together, and are told so: at the worker they yield to the others. What
// waits starts by weight (fair_queue.h). So a flood waits here, and whoever
// does not flood passes it, here and there. Where there are no keys, everybody
// is the tenant "", and only `max_starting` bounds it.
#ifndef CARAVAN_GATEWAY_ADMISSION_LIMITER_H_
#define CARAVAN_GATEWAY_ADMISSION_LIMITER_H_

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gateway/admission/fair_queue.h"
#include "gateway/admission/recent_rate.h"
#include "gateway/admission/share_meter.h"
#include "gateway/admission/start_window.h"

namespace caravan::gateway {

struct LimiterOptions {
  int32_t max_queued = 4096;  // requests that wait here
  // Requests at workers without a token yet.
  int32_t max_starting = 256;
  // For how long what a tenant asked for is held against it.
  absl::Duration share_window = absl::Seconds(120);
};

// What the limiter knows of a request.
struct AdmissionRequest {
  std::string tenant;
  double weight = 1;  // of the tenant, > 0
  int32_t priority = 0;
  double cost = 1;  // expected tokens, of prompt and output; > 0
  absl::Time deadline = absl::InfiniteFuture();
};

// Not thread-safe (AdmissionQueue is). Time is an argument. Ids that are not
// known are ignored.
class Limiter {
 public:
  explicit Limiter(const LimiterOptions& options)
      : options_(options),
        in_share_(options.max_starting),
        over_share_(options.max_starting),
        shares_(options.share_window) {}

  // Queues a request. Error: kQueueFull, with the time after which to try
  // again at the recent rate of starts; also where the request's time would be
  // over in the queue, before its first token.
  absl::StatusOr<TicketId> Enqueue(const AdmissionRequest& request,
                                   absl::Time now);

  // The requests that may start now, in order.
  std::vector<TicketId> Start(absl::Time now);

  // The request goes to this worker.
  void OnPlaced(const std::string& worker, absl::Time now) {
    in_share_.window.OnPlaced(worker, now);
    over_share_.window.OnPlaced(worker, now);
  }
  // The request's worker has not begun with it at once.
  void OnWaitAtWorker(TicketId id);
  // The request has its first token: it is no longer starting.
  void OnFirstToken(TicketId id, absl::Time now);
  // The request has come to cost `cost` and not what was expected.
  void Settle(TicketId id, double cost, absl::Time now);
  // The request ended, or leaves the queue.
  void Release(TicketId id);

  // Whether the request's tenant was over its share when it started.
  bool over_share(TicketId id) const;

  int32_t queued_count() const { return queue_.size(); }
  int32_t starting_count() const {
    return in_share_.starting + over_share_.starting;
  }
  // Starting requests that those over their share may have, together.
  int32_t over_share_window() const { return over_share_.window.size(); }
  // That a tenant in its share may have.
  int32_t tenant_window() const { return in_share_.window.size(); }

 private:
  enum class State { kQueued, kStarting, kRunning };
  struct Ticket {
    QueuedRequest request;
    double cost = 1;
    State state = State::kQueued;
    bool over_share = false;  // when it started
    bool waited_at_worker = false;
    absl::Time start;
  };
  // The starting requests that are over their share, or those that are not:
  // how soon workers begin with the ones says nothing of the others.
  struct Lane {
    explicit Lane(int32_t most) : window(most) {}
    StartWindow window;
    int32_t starting = 0;
    int32_t waiting = 0;  // of them, not begun with at once
  };

  bool MayStart(const std::string& tenant, absl::Time now);
  absl::Status CheckRoom(const AdmissionRequest& request,
                         const QueuedRequest& queued, absl::Time now);
  absl::Duration ExpectedWait(const QueuedRequest& request,
                              absl::Time now) const;
  void StartNow(TicketId id, absl::Time now);
  Lane& LaneOf(const Ticket& ticket) {
    return ticket.over_share ? over_share_ : in_share_;
  }
  void LeaveStarting(const Ticket& ticket);

  const LimiterOptions options_;
  TicketId next_id_ = 1;
  std::unordered_map<TicketId, Ticket> tickets_;
  FairQueue queue_;
  Lane in_share_;
  Lane over_share_;
  std::unordered_map<std::string, int32_t> starting_of_;  // in share; by tenant
  ShareMeter shares_;
  RecentRate starts_;
  double mean_cost_ = 1;            // of those that started
  absl::Duration mean_start_time_;  // from start to first token
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_ADMISSION_LIMITER_H_
