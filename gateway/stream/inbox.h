// Where everything that happens to one request arrives: tokens from workers,
// admission, cancellation, time. Producers are many threads; the consumer is
// the request's coroutine, which one push wakes at most once.
#ifndef CARAVAN_GATEWAY_STREAM_INBOX_H_
#define CARAVAN_GATEWAY_STREAM_INBOX_H_

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "gateway/stream/events.h"

namespace caravan::gateway {

// A token as a worker sent it.
struct WorkerToken {
  int32_t choice = 0;
  int32_t position = 0;
  TokenPiece piece;
};

// Logprob of a prompt token as a worker sent it.
struct WorkerScore {
  int32_t position = 0;  // in the prompt, from 1
  TokenPiece piece;
};

struct WorkerFinish {
  int32_t choice = 0;
  FinishReason reason = FinishReason::kStop;
  int32_t output_token_count = 0;
};

// What one step of a worker gave to one handle, in the order of the fields.
struct HandleEvents {
  uint64_t handle = 0;
  std::optional<int32_t> cached_token_count;
  std::vector<WorkerScore> scores;
  std::vector<WorkerToken> tokens;
  std::vector<WorkerFinish> finishes;
  absl::Status error;        // not OK: the handle has failed
  bool worker_died = false;  // with an error: the session broke while it ran
  bool should_move = false;  // the worker drains
  bool queued = false;       // it waits for its first step
  bool started = false;      // it waits no longer
};

// All that came since the last wake-up.
struct InboxContents {
  std::vector<HandleEvents> events;
  bool admitted = false;
};

struct InboxOptions {
  // Tokens that wait while the client does not read, and for how long they
  // may; over both the stream ends with kSlowReader.
  int32_t max_backlog_tokens = 4096;
  absl::Duration patience = absl::Seconds(5);
};

// Thread-safe, but for Wait and Pause: one consumer at a time.
class Inbox : public std::enable_shared_from_this<Inbox> {
 public:
  explicit Inbox(const InboxOptions& options,
                 const Clock& clock = SystemClock::Get());

  // Takes what a worker sent. False when the request wants no more: it is
  // cancelled, or its client is too slow (and then is cancelled).
  [[nodiscard]] bool Push(HandleEvents events);

  // The request may start.
  void Admit();

  // Ends the request; the first status counts.
  void Cancel(absl::Status status);

  // OK unless cancelled.
  absl::Status cancelled() const;

  // Waits until there is something, or the request is cancelled.
  boost::asio::awaitable<InboxContents> Wait();

  // Waits for `duration`, or until the request is cancelled. Takes nothing
  // out.
  boost::asio::awaitable<void> Pause(absl::Duration duration);

  // Between the two the consumer waits for its client.
  void BeginWrite();
  void EndWrite();

 private:
  // Posts the rest of the coroutine to its executor.
  using Waiter = absl::AnyInvocable<void()>;

  boost::asio::awaitable<void> AwaitWake(bool for_contents);
  bool HasNewsLocked(bool for_contents) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Waiter TakeWaiterLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wake();

  const InboxOptions options_;
  const Clock& clock_;
  mutable absl::Mutex mutex_;
  InboxContents contents_ ABSL_GUARDED_BY(mutex_);
  bool has_contents_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status cancelled_ ABSL_GUARDED_BY(mutex_);
  int32_t backlog_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Time> writing_since_ ABSL_GUARDED_BY(mutex_);
  Waiter waiter_ ABSL_GUARDED_BY(mutex_);
  bool waits_for_contents_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_STREAM_INBOX_H_
