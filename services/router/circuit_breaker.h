// Keeps placements away for a while from a replica that registers and sends
// heartbeats but fails its requests: gateways exclude it, or its stream keeps
// breaking.
//
// Closed: placements flow. `failures_to_open` failures within `window` open
// it for `open_time`; after that it is on probation, where one failure opens
// it for twice as long, up to `max_open_time`, and `window` without one
// closes it.
//
// Not thread-safe. Time is an argument.
#ifndef CARAVAN_SERVICES_ROUTER_CIRCUIT_BREAKER_H_
#define CARAVAN_SERVICES_ROUTER_CIRCUIT_BREAKER_H_

#include <deque>

#include "absl/time/time.h"

namespace caravan::router {

struct CircuitBreakerOptions {
  int failures_to_open = 5;
  absl::Duration window = absl::Seconds(10);
  absl::Duration open_time = absl::Seconds(1);
  absl::Duration max_open_time = absl::Seconds(30);
  // Failures closer than this are one: when a worker dies, each of its
  // hundreds of streams asks for another place.
  absl::Duration merge_within = absl::Milliseconds(100);
};

class CircuitBreaker {
 public:
  explicit CircuitBreaker(const CircuitBreakerOptions& options = {})
      : options_(options) {}

  void RecordFailure(absl::Time now);

  // Whether placements are kept away.
  bool IsOpen(absl::Time now) const { return now < open_until_; }

  // In the past where it is closed.
  absl::Time open_until() const { return open_until_; }

  // Whether nothing is remembered that matters: it can be thrown away.
  bool IsForgotten(absl::Time now) const {
    return now >= open_until_ + options_.window &&
           (failures_.empty() || now - failures_.back() >= options_.window);
  }

 private:
  bool OnProbation(absl::Time now) const;

  const CircuitBreakerOptions options_;
  std::deque<absl::Time> failures_;  // within the window, oldest first
  absl::Time open_until_ = absl::InfinitePast();
  absl::Duration last_open_time_;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_CIRCUIT_BREAKER_H_
