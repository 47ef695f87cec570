#include "services/router/circuit_breaker.h"

#include <algorithm>
#include <iterator>

namespace caravan::router {

bool CircuitBreaker::OnProbation(absl::Time now) const {
  return !IsOpen(now) && now < open_until_ + options_.window;
}

void CircuitBreaker::RecordFailure(absl::Time now) {
  if (IsOpen(now)) return;  // what was under way when it opened
  if (!failures_.empty() && now - failures_.back() < options_.merge_within) {
    return;
  }
  const bool on_probation = OnProbation(now);
  failures_.push_back(now);
  while (now - failures_.front() >= options_.window) failures_.pop_front();
  if (!on_probation && std::ssize(failures_) < options_.failures_to_open) {
    return;
  }
  last_open_time_ = on_probation
                        ? std::min(last_open_time_ * 2, options_.max_open_time)
                        : options_.open_time;
  open_until_ = now + last_open_time_;
  failures_.clear();
}

}  // namespace caravan::router
