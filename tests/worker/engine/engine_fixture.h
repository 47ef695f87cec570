// An engine over the fake model, stepped by the test.
#ifndef CARAVAN_TESTS_WORKER_ENGINE_ENGINE_FIXTURE_H_
#define CARAVAN_TESTS_WORKER_ENGINE_ENGINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "tests/simulation/fake_model_runner.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/engine.h"

namespace caravan::worker {

// Keeps every report.
class ReportLog final : public EngineSink {
 public:
  void Emit(const StepReport& report) override { reports.push_back(report); }
  void OnQueue(const QueueNews& news) override {
    queued.insert(queued.end(), news.queued.begin(), news.queued.end());
    started.insert(started.end(), news.started.begin(), news.started.end());
  }
  std::vector<StepReport> reports;
  std::vector<GroupId> queued;
  std::vector<GroupId> started;
};

class EngineFixture : public ::testing::Test {
 protected:
  EngineFixture() {
    options_.block_count = 16;
    options_.context_length = 200;
    options_.max_step_tokens = 64;
    options_.max_prefill_chunk = 32;
  }

  void Start() {
    model_.block_count = options_.block_count;
    model_.context_length = options_.context_length;
    runner_ = std::make_unique<FakeModelRunner>(model_);
    ASSERT_OK_AND_ASSIGN(
        engine_, Engine::Create(options_, runner_.get(), &log_, &clock_));
  }

  // `size` tokens that differ between families from the first one on.
  static std::vector<TokenId> Prompt(int size, int family = 0) {
    std::vector<TokenId> ids;
    for (int i = 0; i < size; ++i) ids.push_back((family * 7 + i * 3) % 50);
    return ids;
  }

  static GroupRequest Request(GroupId id, std::vector<TokenId> prompt,
                              int max_tokens, int n = 1) {
    GroupRequest request;
    request.id = id;
    request.prompt =
        std::make_shared<const std::vector<TokenId>>(std::move(prompt));
    request.stop.max_tokens = max_tokens;
    request.sampling.seed = 1000 + id;
    for (int i = 0; i < n; ++i) {
      request.choices.push_back({.index = i, .output = {}});
    }
    return request;
  }

  StepReport Step() {
    absl::StatusOr<StepReport> report = engine_->Step();
    EXPECT_OK(report);
    EXPECT_OK(engine_->Audit());
    EXPECT_TRUE(runner_->violations().empty()) << runner_->violations().front();
    return report.ok() ? *std::move(report) : StepReport::Idle();
  }

  // Steps until nothing is left to do; false when that never comes.
  void StepUntilIdle() {
    for (int i = 0; i < 2000; ++i) {
      if (Step().idle) return;
    }
    FAIL() << "the engine does not come to rest";
  }

  std::vector<TokenId> Tokens(GroupId group, int choice = 0) const {
    std::vector<TokenId> ids;
    for (const StepReport& report : log_.reports) {
      for (const TokenEvent& event : report.tokens) {
        if (event.group == group && event.choice == choice) {
          ids.push_back(event.token.token_id);
        }
      }
    }
    return ids;
  }
  std::vector<TokenId> Alone(const GroupRequest& request,
                             int choice = 0) const {
    std::vector<TokenId> ids;
    const ReferenceStream stream =
        FakeModelRunner::Alone(model_, request, request.choices[choice]);
    for (const ScoredToken& token : stream.tokens) {
      ids.push_back(token.token_id);
    }
    return ids;
  }
  std::vector<FinishEvent> Finishes() const {
    std::vector<FinishEvent> all;
    for (const StepReport& report : log_.reports) {
      all.insert(all.end(), report.finishes.begin(), report.finishes.end());
    }
    return all;
  }
  std::vector<ErrorEvent> Errors() const {
    std::vector<ErrorEvent> all;
    for (const StepReport& report : log_.reports) {
      all.insert(all.end(), report.errors.begin(), report.errors.end());
    }
    return all;
  }
  std::vector<PromptEvent> Prompts() const {
    std::vector<PromptEvent> all;
    for (const StepReport& report : log_.reports) {
      all.insert(all.end(), report.prompts.begin(), report.prompts.end());
    }
    return all;
  }
  int Sum(int32_t StepCounters::*member) const {
    int sum = 0;
    for (const StepReport& report : log_.reports) {
      sum += report.counters.*member;
    }
    return sum;
  }

  EngineOptions options_;
  FakeModelOptions model_;
  testing::ManualClock clock_;
  ReportLog log_;
  std::unique_ptr<FakeModelRunner> runner_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_TESTS_WORKER_ENGINE_ENGINE_FIXTURE_H_
