#include "gateway/stream/inbox.h"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "common/status/errors.h"
#include "gateway/admission/admission_queue.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace caravan::gateway {
namespace {

namespace asio = boost::asio;
using ::caravan::testing::HasReason;

HandleEvents Tokens(uint64_t handle, int count) {
  HandleEvents events;
  events.handle = handle;
  events.tokens.resize(count);
  return events;
}

class InboxTest : public ::testing::Test {
 protected:
  // Runs a consumer that collects what comes until it is cancelled.
  void Collect(asio::io_context& context) {
    asio::co_spawn(
        context,
        [this]() -> asio::awaitable<void> {
          while (inbox_->cancelled().ok()) {
            const InboxContents contents = co_await inbox_->Wait();
            ++wakes_;
            for (const HandleEvents& events : contents.events) {
              handles_.push_back(events.handle);
            }
            admitted_ = admitted_ || contents.admitted;
          }
        },
        asio::detached);
  }

  testing::ManualClock clock_;
  std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>(
      InboxOptions{.max_backlog_tokens = 10, .patience = absl::Seconds(5)},
      clock_);
  std::vector<uint64_t> handles_;
  int wakes_ = 0;
  bool admitted_ = false;
};

TEST_F(InboxTest, OneWakeUpGivesAllThatCame) {
  asio::io_context context;
  EXPECT_TRUE(inbox_->Push(Tokens(1, 1)));
  EXPECT_TRUE(inbox_->Push(Tokens(2, 1)));
  inbox_->Admit();
  Collect(context);
  context.poll();
  EXPECT_EQ(handles_, (std::vector<uint64_t>{1, 2}));
  EXPECT_TRUE(admitted_);
  EXPECT_EQ(wakes_, 1);
  inbox_->Cancel(MakeError(Reason::kCancelled, ""));
  context.run();
}

TEST_F(InboxTest, NothingIsLostBetweenThreads) {
  constexpr int kCount = 2000;
  asio::io_context context;
  Collect(context);
  std::jthread producer([this] {
    for (int i = 0; i < kCount; ++i) EXPECT_TRUE(inbox_->Push(Tokens(i, 1)));
    inbox_->Cancel(MakeError(Reason::kCancelled, "that was all"));
  });
  context.run();
  producer.join();
  // What came with the cancellation may not have been taken any more.
  for (size_t i = 0; i < handles_.size(); ++i) EXPECT_EQ(handles_[i], i);
  EXPECT_FALSE(inbox_->Push(Tokens(1, 1)));
}

TEST_F(InboxTest, ACancelledPauseEndsAtOnce) {
  asio::io_context context;
  bool ended = false;
  asio::co_spawn(
      context,
      [this, &ended]() -> asio::awaitable<void> {
        co_await inbox_->Pause(absl::Hours(1));
        ended = true;
      },
      asio::detached);
  context.poll();
  EXPECT_TRUE(inbox_->Push(Tokens(1, 1)));
  context.poll();
  EXPECT_FALSE(ended);
  inbox_->Cancel(MakeError(Reason::kCancelled, ""));
  context.poll();
  EXPECT_TRUE(ended);
}

TEST_F(InboxTest, APauseEndsByItself) {
  asio::io_context context;
  bool ended = false;
  asio::co_spawn(
      context,
      [this, &ended]() -> asio::awaitable<void> {
        co_await inbox_->Pause(absl::Milliseconds(1));
        ended = true;
      },
      asio::detached);
  context.run();
  EXPECT_TRUE(ended);
}

TEST_F(InboxTest, AClientThatDoesNotReadIsTooSlowAfterItsPatience) {
  inbox_->BeginWrite();
  EXPECT_TRUE(inbox_->Push(Tokens(1, 50)));  // many, but not for long
  clock_.Advance(absl::Seconds(6));
  EXPECT_FALSE(inbox_->Push(Tokens(1, 1)));
  EXPECT_THAT(inbox_->cancelled(), HasReason(Reason::kSlowReader));
}

TEST_F(InboxTest, AGatewayThatLagsBehindIsNoSlowReader) {
  for (int i = 0; i < 100; ++i) {
    inbox_->BeginWrite();
    inbox_->EndWrite();
    EXPECT_TRUE(inbox_->Push(Tokens(1, 5)));
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_OK(inbox_->cancelled());
}

TEST_F(InboxTest, TheFirstCancellationCounts) {
  inbox_->Cancel(MakeError(Reason::kDraining, "first"));
  inbox_->Cancel(MakeError(Reason::kCancelled, "second"));
  EXPECT_THAT(inbox_->cancelled(), HasReason(Reason::kDraining));
}

TEST_F(InboxTest, ATicketGivenBackAdmitsTheNext) {
  AdmissionQueue queue({.max_queued = 4, .max_starting = 1}, clock_);
  const auto waiting = std::make_shared<Inbox>(InboxOptions(), clock_);
  ASSERT_OK_AND_ASSIGN(AdmissionTicket first, queue.Enter({}, inbox_));
  ASSERT_OK_AND_ASSIGN(AdmissionTicket second, queue.Enter({}, waiting));
  EXPECT_EQ(queue.queued_count(), 1);
  AdmissionTicket moved = std::move(first);
  EXPECT_EQ(queue.queued_count(), 1);
  moved.Release();
  moved.Release();
  EXPECT_EQ(queue.queued_count(), 0);
}

}  // namespace
}  // namespace caravan::gateway
