// A clock that jumps from one event to the next: hours of a fleet in seconds.
//
// Not thread-safe.
#ifndef CARAVAN_TESTS_SIMULATION_VIRTUAL_TIME_H_
#define CARAVAN_TESTS_SIMULATION_VIRTUAL_TIME_H_

#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/clock.h"

namespace caravan::simulation {

class VirtualTime final : public Clock {
 public:
  using Action = std::function<void()>;

  absl::Time Now() const override { return now_; }
  absl::Duration elapsed() const { return now_ - start_; }

  // Actions of the same time run in the order in which they were given.
  void After(absl::Duration delay, Action action) {
    events_.push({now_ + delay, next_number_++, std::move(action)});
  }
  void At(absl::Duration elapsed, Action action) {
    After(start_ + elapsed - now_, std::move(action));
  }

  // Runs the next event; false when there is none.
  bool RunNext() {
    if (events_.empty()) return false;
    Action action = std::move(const_cast<Event&>(events_.top()).action);
    now_ = events_.top().time;
    events_.pop();
    action();
    return true;
  }

 private:
  struct Event {
    absl::Time time;
    int64_t number = 0;
    Action action;
    bool operator<(const Event& other) const {
      return std::pair(other.time, other.number) < std::pair(time, number);
    }
  };
  const absl::Time start_ = absl::FromUnixSeconds(1'700'000'000);

  absl::Time now_ = start_;
  int64_t next_number_ = 0;
  std::priority_queue<Event> events_;
};

}  // namespace caravan::simulation

#endif  // CARAVAN_TESTS_SIMULATION_VIRTUAL_TIME_H_
