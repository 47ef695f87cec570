// How often something happens, over about the last ten seconds.
//
// Not thread-safe. Time is an argument.
#ifndef CARAVAN_GATEWAY_ADMISSION_RECENT_RATE_H_
#define CARAVAN_GATEWAY_ADMISSION_RECENT_RATE_H_

#include <algorithm>
#include <cmath>

#include "absl/time/time.h"

namespace caravan::gateway {

class RecentRate {
 public:
  void Count(absl::Time now) {
    per_second_ = PerSecond(now) + 1 / kWindowSeconds;
    last_ = std::max(last_, now);
  }

  double PerSecond(absl::Time now) const {
    const double elapsed = std::max(absl::ToDoubleSeconds(now - last_), 0.0);
    return per_second_ * std::exp(-elapsed / kWindowSeconds);
  }

 private:
  static constexpr double kWindowSeconds = 10;

  double per_second_ = 0;
  absl::Time last_ = absl::InfinitePast();
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_ADMISSION_RECENT_RATE_H_
