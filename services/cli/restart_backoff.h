// How long to wait before a process that died is started again.
#ifndef CARAVAN_SERVICES_CLI_RESTART_BACKOFF_H_
#define CARAVAN_SERVICES_CLI_RESTART_BACKOFF_H_

#include <algorithm>

#include "absl/time/time.h"

namespace caravan::cli {

struct BackoffOptions {
  absl::Duration first = absl::Milliseconds(250);
  absl::Duration longest = absl::Seconds(10);
  // A process that lived this long starts again from `first`.
  absl::Duration steady = absl::Seconds(30);
};

// The pause doubles with each death, up to the longest.
//
// Not thread-safe.
class RestartBackoff {
 public:
  explicit RestartBackoff(const BackoffOptions& options)
      : options_(options), next_(options.first) {}

  // The pause after a death at the end of `lifetime`.
  absl::Duration NextPause(absl::Duration lifetime) {
    if (lifetime >= options_.steady) next_ = options_.first;
    const absl::Duration pause = next_;
    next_ = std::min(next_ * 2, options_.longest);
    return pause;
  }

 private:
  BackoffOptions options_;
  absl::Duration next_;
};

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_RESTART_BACKOFF_H_
