// Run(), with submits and cancels from other threads.
#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "tests/simulation/fake_model_runner.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/engine.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::HasReason;

// Remembers who ended; thread-safe.
class EndLog final : public EngineSink {
 public:
  void Emit(const StepReport& report) override {
    absl::MutexLock lock(&mutex_);
    for (const FinishEvent& event : report.finishes) ended_.insert(event.group);
    for (const ErrorEvent& event : report.errors) ended_.insert(event.group);
  }
  void Await(GroupId id) {
    absl::MutexLock lock(&mutex_);
    awaited_ = id;
    mutex_.Await(absl::Condition(this, &EndLog::AwaitedEnded));
  }
  bool Ended(GroupId id) {
    absl::MutexLock lock(&mutex_);
    return ended_.contains(id);
  }

 private:
  bool AwaitedEnded() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ended_.contains(awaited_);
  }
  absl::Mutex mutex_;
  std::set<GroupId> ended_ ABSL_GUARDED_BY(mutex_);
  GroupId awaited_ ABSL_GUARDED_BY(mutex_) = 0;
};

GroupRequest Request(GroupId id) {
  GroupRequest request;
  request.id = id;
  request.prompt = std::make_shared<const std::vector<TokenId>>(
      std::vector<TokenId>{1, 2, static_cast<TokenId>(id % 50)});
  request.choices = {{.index = 0, .output = {}}};
  request.stop.max_tokens = 8;
  return request;
}

class EngineThreadTest : public ::testing::Test {
 protected:
  EngineThreadTest() {
    EngineOptions options;
    options.block_count = 16;
    options.context_length = 100;
    options.depth = 2;
    options.max_waiting = 10000;
    engine_ = *Engine::Create(options, &runner_, &ends_, &SystemClock::Get());
  }

  FakeModelRunner runner_{{}};
  EndLog ends_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineThreadTest, RunServesSubmitsUntilItIsStopped) {
  absl::Status result = absl::UnknownError("");
  {
    std::jthread thread([&] { result = engine_->Run(); });
    for (GroupId id = 1; id <= 50; ++id)
      ASSERT_OK(engine_->Submit(Request(id)));
    for (GroupId id = 1; id <= 50; ++id) ends_.Await(id);
    ASSERT_OK(engine_->Submit(Request(51)));  // it slept
    ends_.Await(51);
    engine_->Stop();
  }
  EXPECT_OK(result);
  EXPECT_TRUE(runner_.violations().empty());
}

TEST_F(EngineThreadTest, SubmitsAndCancelsFromManyThreadsAllEnd) {
  std::jthread engine_thread([&] { EXPECT_OK(engine_->Run()); });
  {
    std::vector<std::jthread> clients;
    for (GroupId client = 0; client < 4; ++client) {
      clients.emplace_back([this, client] {
        for (GroupId i = 0; i < 100; ++i) {
          const GroupId id = 1 + client * 100 + i;
          EXPECT_OK(engine_->Submit(Request(id)));
          if (i % 3 == 0) engine_->Cancel(id);
          engine_->load();
          engine_->CachedHashes();
        }
      });
    }
  }
  for (GroupId client = 0; client < 4; ++client) {
    for (GroupId i = 0; i < 100; ++i) {
      if (i % 3 != 0) ends_.Await(1 + client * 100 + i);
    }
  }
  ASSERT_OK(engine_->Submit(Request(1000)));
  ends_.Await(1000);
  engine_->Stop();
  engine_thread.join();
  EXPECT_TRUE(engine_->Drained());
  EXPECT_EQ(engine_->load().leased_blocks, 0);
}

TEST_F(EngineThreadTest, RunReturnsTheRunnersErrorAfterFailingAll) {
  runner_.FailNextCollect();
  ASSERT_OK(engine_->Submit(Request(1)));
  EXPECT_THAT(engine_->Run(), HasReason(Reason::kWorkerLost));
  EXPECT_TRUE(ends_.Ended(1));
}

}  // namespace
}  // namespace caravan::worker
