// Calls one of several equal servers, and again when none answers.
#ifndef CARAVAN_GATEWAY_BACKEND_FAILOVER_H_
#define CARAVAN_GATEWAY_BACKEND_FAILOVER_H_

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstddef>
#include <functional>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::gateway {

// Until when, and whether it is still wanted.
struct Patience {
  absl::Time deadline = absl::InfiniteFuture();
  std::function<bool()> wanted = [] { return true; };
};

// Remembers which of the servers answered last. Thread-safe.
class Rotation {
 public:
  explicit Rotation(size_t size) : size_(size) {}
  size_t size() const { return size_; }
  size_t current() const { return current_.load() % size_; }
  void Advance(size_t from) {
    size_t expected = from;
    current_.compare_exchange_strong(expected, (from + 1) % size_);
  }

 private:
  const size_t size_;
  std::atomic<size_t> current_ = 0;
};

inline boost::asio::awaitable<void> PauseFor(absl::Duration duration) {
  boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor);
  timer.expires_after(absl::ToChronoNanoseconds(duration));
  co_await timer.async_wait(boost::asio::use_awaitable);
}

// `call(index)` is tried on each server, starting with the one that answered
// last; when all are unavailable, again after a growing pause, until the
// patience ends with `unavailable`. Other errors end the search.
template <typename Response, typename Call>
boost::asio::awaitable<absl::StatusOr<Response>> CallAny(Rotation& rotation,
                                                         Patience patience,
                                                         Reason unavailable,
                                                         std::string_view what,
                                                         Call call) {
  constexpr absl::Duration kLongestPause = absl::Milliseconds(500);
  absl::Duration pause = absl::Milliseconds(20);
  for (;;) {
    absl::Status last;
    for (size_t i = 0; i < rotation.size(); ++i) {
      const size_t index = rotation.current();
      absl::StatusOr<Response> response = co_await call(index);
      // A transport's failure, not an answer that says "unavailable".
      const bool answered =
          response.ok() ||
          (response.status().code() != absl::StatusCode::kUnavailable &&
           response.status().code() != absl::StatusCode::kDeadlineExceeded) ||
          ReasonOf(response.status()) == Reason::kNoReplica ||
          ReasonOf(response.status()) == Reason::kNoReplicaOfClass;
      if (answered) co_return response;
      last = response.status();
      rotation.Advance(index);
    }
    if (absl::Now() + pause >= patience.deadline || !patience.wanted()) {
      co_return MakeError(
          unavailable,
          StrCat(what, " does not answer: ", ToStd(last.message())));
    }
    co_await PauseFor(pause);
    pause = std::min(pause * 2, kLongestPause);
  }
}

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_BACKEND_FAILOVER_H_
