// Decides which requests start, and in which order: a bounded queue before a
// bounded number of requests that wait for their first token at workers.
//
// A request passes three states: queued here; starting (sent to a worker, no
// token yet); running (tokens come; the worker's scheduler bounds it). Only the
// first two count here.
//
// Order: higher priority first; within it tenants share by weight (start-time
// fair queueing: each start advances the tenant's virtual time by cost /
// weight, the least goes first); within a tenant first come first served.
#ifndef CARAVAN_GATEWAY_ADMISSION_LIMITER_H_
#define CARAVAN_GATEWAY_ADMISSION_LIMITER_H_

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace caravan::gateway {

struct LimiterOptions {
  int32_t max_queued = 4096;   // requests that wait here
  int32_t max_starting = 256;  // requests at workers without a token yet
};

// What the limiter knows of a request.
struct AdmissionRequest {
  std::string tenant;
  double weight = 1;  // of the tenant, > 0
  int32_t priority = 0;
  double cost = 1;  // work of the request in any one unit, > 0
};

using TicketId = uint64_t;

// Not thread-safe (AdmissionQueue is). Time is an argument.
class Limiter {
 public:
  explicit Limiter(const LimiterOptions& options) : options_(options) {}

  // Queues a request. Error: kQueueFull, with the time after which a place
  // should be free at the recent rate of starts.
  absl::StatusOr<TicketId> Enqueue(const AdmissionRequest& request,
                                   absl::Time now);

  // The requests that may start now, in order.
  std::vector<TicketId> Start(absl::Time now);

  // The request has its first token, or ended; a queued one leaves the queue.
  // Ids that are not known are ignored.
  void Release(TicketId id);

  int32_t queued_count() const { return static_cast<int32_t>(queue_.size()); }
  int32_t starting_count() const { return starting_count_; }

 private:
  // Ascending: what starts first comes first.
  using Key =
      std::tuple<int32_t /*-priority*/, double /*virtual start*/, TicketId>;
  struct Ticket {
    Key key;
    bool starting = false;
  };

  absl::Duration EstimateWait() const;
  void CountStart(absl::Time now);

  const LimiterOptions options_;
  TicketId next_id_ = 1;
  std::map<Key, TicketId> queue_;
  std::unordered_map<TicketId, Ticket> tickets_;
  std::unordered_map<std::string, double> tenant_finish_;  // virtual times
  double virtual_now_ = 0;
  int32_t starting_count_ = 0;
  // Starts per second, an exponential average over about ten seconds.
  double start_rate_ = 0;
  absl::Time last_start_ = absl::InfinitePast();
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_ADMISSION_LIMITER_H_
