#include "gateway/stream/inbox.h"

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <utility>

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::gateway {

namespace asio = boost::asio;

Inbox::Inbox(const InboxOptions& options, const Clock& clock)
    : options_(options), clock_(clock) {}

bool Inbox::Push(HandleEvents events) {
  Waiter waiter;
  {
    absl::MutexLock lock(&mutex_);
    if (!cancelled_.ok()) return false;
    backlog_tokens_ += static_cast<int32_t>(events.tokens.size());
    if (backlog_tokens_ > options_.max_backlog_tokens && writing_since_ &&
        clock_.Now() - *writing_since_ > options_.patience) {
      cancelled_ =
          MakeError(Reason::kSlowReader,
                    StrCat("at most ", options_.max_backlog_tokens,
                           " tokens wait for a client that does not read; got ",
                           backlog_tokens_),
                    {{"limit", StrCat(options_.max_backlog_tokens)},
                     {"value", StrCat(backlog_tokens_)}});
      return false;  // the consumer is in its write; it learns after it
    }
    contents_.events.push_back(std::move(events));
    has_contents_ = true;
    waiter = TakeWaiterLocked();
  }
  if (waiter) waiter();
  return true;
}

void Inbox::Admit() {
  Waiter waiter;
  {
    absl::MutexLock lock(&mutex_);
    contents_.admitted = true;
    has_contents_ = true;
    waiter = TakeWaiterLocked();
  }
  if (waiter) waiter();
}

void Inbox::Cancel(absl::Status status) {
  Waiter waiter;
  {
    absl::MutexLock lock(&mutex_);
    if (!cancelled_.ok()) return;
    cancelled_ = std::move(status);
    waiter = TakeWaiterLocked();
  }
  if (waiter) waiter();
}

absl::Status Inbox::cancelled() const {
  absl::MutexLock lock(&mutex_);
  return cancelled_;
}

void Inbox::Wake() {
  Waiter waiter;
  {
    absl::MutexLock lock(&mutex_);
    waiter = std::exchange(waiter_, Waiter());
  }
  if (waiter) waiter();
}

bool Inbox::HasNewsLocked(bool for_contents) const {
  return !cancelled_.ok() || (for_contents && has_contents_);
}

Inbox::Waiter Inbox::TakeWaiterLocked() {
  if (!waiter_ || !HasNewsLocked(waits_for_contents_)) return Waiter();
  return std::exchange(waiter_, Waiter());
}

asio::awaitable<void> Inbox::AwaitWake(bool for_contents) {
  co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(
      [this, for_contents](auto handler) {
        const auto executor = asio::get_associated_executor(handler);
        Waiter waiter = [executor, resume = std::move(handler)]() mutable {
          asio::post(executor, std::move(resume));
        };
        {
          absl::MutexLock lock(&mutex_);
          if (!HasNewsLocked(for_contents)) {
            waiter_ = std::move(waiter);
            waits_for_contents_ = for_contents;
            return;
          }
        }
        waiter();
      },
      asio::use_awaitable);
}

asio::awaitable<InboxContents> Inbox::Wait() {
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      if (HasNewsLocked(/*for_contents=*/true)) {
        has_contents_ = false;
        backlog_tokens_ = 0;
        co_return std::exchange(contents_, InboxContents());
      }
    }
    co_await AwaitWake(/*for_contents=*/true);
  }
}

asio::awaitable<void> Inbox::Pause(absl::Duration duration) {
  const auto executor = co_await asio::this_coro::executor;
  asio::steady_timer timer(executor);
  timer.expires_after(absl::ToChronoNanoseconds(duration));
  const auto expired = std::make_shared<bool>(false);
  timer.async_wait([inbox = shared_from_this(), expired](const auto& error) {
    if (error) return;
    *expired = true;
    inbox->Wake();
  });
  while (!*expired && cancelled().ok()) {
    co_await AwaitWake(/*for_contents=*/false);
  }
}

void Inbox::BeginWrite() {
  absl::MutexLock lock(&mutex_);
  writing_since_ = clock_.Now();
}

void Inbox::EndWrite() {
  absl::MutexLock lock(&mutex_);
  writing_since_.reset();
}

}  // namespace caravan::gateway
