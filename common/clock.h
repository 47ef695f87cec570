// Time as a dependency, so that tests decide what time it is.
#ifndef CARAVAN_COMMON_CLOCK_H_
#define CARAVAN_COMMON_CLOCK_H_

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace caravan {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Never goes backwards on one clock. Only differences mean something.
  virtual absl::Time Now() const = 0;
};

// The machine's time, kept monotonic by anchoring the steady clock once.
class SystemClock final : public Clock {
 public:
  absl::Time Now() const override;
  // Process-wide instance; never destroyed.
  static const SystemClock& Get();
};

}  // namespace caravan

#endif  // CARAVAN_COMMON_CLOCK_H_
