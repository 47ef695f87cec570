#include "common/clock.h"

#include <chrono>

namespace caravan {

absl::Time SystemClock::Now() const {
  static const absl::Time anchor = absl::Now();
  static const auto steady_anchor = std::chrono::steady_clock::now();
  return anchor +
         absl::FromChrono(std::chrono::steady_clock::now() - steady_anchor);
}

const SystemClock& SystemClock::Get() {
  static const SystemClock* const clock = new SystemClock();
  return *clock;
}

}  // namespace caravan
