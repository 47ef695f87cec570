// When a peer that promised to speak has been silent for too long.
#ifndef CARAVAN_GATEWAY_BACKEND_SILENCE_H_
#define CARAVAN_GATEWAY_BACKEND_SILENCE_H_

#include "absl/time/time.h"

namespace caravan::gateway {

// Intervals without a word after which a peer is dead; half of one is for a
// busy machine's jitter. Routers count alike.
inline constexpr double kDeadAfterIntervals = 4.5;
// What a peer may take to say hello.
inline constexpr absl::Duration kGreetingTime = absl::Seconds(5);

// Time is what ticks say, not what a clock does: a process that was stopped
// itself has not heard its peers either, and must not blame them for it.
//
// Not thread-safe.
class Silence {
 public:
  // The peer said hello and speaks at least once an `interval` from now on;
  // without one (zero) it may be silent for ever.
  void Greeted(absl::Duration interval) {
    limit_ = interval > absl::ZeroDuration() ? interval * kDeadAfterIntervals
                                             : absl::InfiniteDuration();
    lasted_ = absl::ZeroDuration();
  }

  // The peer said something.
  void Heard() { lasted_ = absl::ZeroDuration(); }

  // So much time has gone. Returns whether the peer is dead.
  bool Tick(absl::Duration time) {
    lasted_ += time;
    return lasted_ >= limit_;
  }

  absl::Duration lasted() const { return lasted_; }

 private:
  absl::Duration limit_ = kGreetingTime;
  absl::Duration lasted_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_BACKEND_SILENCE_H_
