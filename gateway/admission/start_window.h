// How many requests of one tenant, or of all over their share, may be at
// workers without a token yet.
//
// Two for each worker, so that one is there when another has its token. More
// where workers begin with them at once, which is when prompts are short for
// them; fewer again with each that has to wait while one a worker waits
// already. What waits at workers is therefore little, and what waits in the
// gateway is in a fair order.
//
// Not thread-safe. Time is an argument.
#ifndef CARAVAN_GATEWAY_ADMISSION_START_WINDOW_H_
#define CARAVAN_GATEWAY_ADMISSION_START_WINDOW_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_map>

#include "absl/time/time.h"

namespace caravan::gateway {

class StartWindow {
 public:
  // `most` >= 0; 0: nothing ever starts.
  explicit StartWindow(int32_t most) : most_(most) {}

  int32_t size() const { return std::min(most_, std::max(least(), size_)); }

  // Something was sent to the worker.
  void OnPlaced(const std::string& worker, absl::Time now) {
    seen_[worker] = now;
    if (now < looked_ + kLook) return;
    looked_ = now;
    std::erase_if(seen_, [now](const auto& entry) {
      return entry.second < now - kForgotten;
    });
  }
  // A request began at once, of `starting` that are at workers.
  void OnPrompt(int32_t starting) {
    if (2 * starting >= size()) size_ = std::min(size() + 1, most_);
  }
  // A request has to wait at its worker, as `waiting` do with it.
  void OnWait(int32_t waiting) {
    if (waiting > workers()) size_ = std::max(size() - 1, least());
  }

 private:
  static constexpr int32_t kLeast = 4;  // finds workers
  static constexpr absl::Duration kForgotten = absl::Seconds(60);
  static constexpr absl::Duration kLook = absl::Seconds(1);

  int32_t workers() const { return static_cast<int32_t>(seen_.size()); }
  int32_t least() const { return std::max(kLeast, 2 * workers()); }

  const int32_t most_;
  int32_t size_ = 0;
  std::unordered_map<std::string, absl::Time> seen_;  // workers
  absl::Time looked_ = absl::InfinitePast();
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_ADMISSION_START_WINDOW_H_
