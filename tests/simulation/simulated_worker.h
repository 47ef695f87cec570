// A worker of a simulated fleet: the real engine with its real scheduler and
// books, over a runner that computes nothing and takes the time that the cost
// model says. A step's tokens and KV changes come out when it ends.
//
// Not thread-safe.
#ifndef CARAVAN_TESTS_SIMULATION_SIMULATED_WORKER_H_
#define CARAVAN_TESTS_SIMULATION_SIMULATED_WORKER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/simulation/step_cost.h"
#include "tests/simulation/virtual_time.h"
#include "worker/engine/engine.h"
#include "worker/engine/model_runner.h"

namespace caravan::simulation {

// Takes no time by itself: says what its last plan would take.
class CostedRunner final : public worker::ModelRunner {
 public:
  explicit CostedRunner(const StepCost& cost) : cost_(cost) {}

  void AddSequence(worker::SequenceSpec spec) override {}
  void DropSequence(worker::SequenceId id) override {}
  absl::Status Launch(worker::BatchPlan plan) override;
  absl::StatusOr<worker::StepResult> Collect() override;
  int in_flight() const override { return static_cast<int>(plans_.size()); }

  absl::Duration last_step_time() const { return last_step_time_; }
  const StepWork& last_work() const { return last_work_; }

 private:
  const StepCost cost_;
  std::deque<worker::BatchPlan> plans_;
  StepWork last_work_;
  absl::Duration last_step_time_;
};

class SimulatedWorker final : public worker::EngineSink {
 public:
  using OnReport = std::function<void(const worker::StepReport&)>;
  using OnNews = std::function<void(const worker::QueueNews&)>;

  // `time` must outlive it; `on_report` gets each step's report at its end,
  // `on_news` at its beginning who waits.
  SimulatedWorker(const worker::EngineOptions& options, const StepCost& cost,
                  VirtualTime* time, OnReport on_report, OnNews on_news);

  absl::Status Submit(worker::GroupRequest request);
  void Cancel(worker::GroupId id);

  // Nothing comes out of it any more.
  void Stop() { *alive_ = false; }
  bool alive() const { return *alive_; }

  // As Engine::load() would say in a real worker: after the last step that
  // has ended, and what was submitted since that step began.
  worker::EngineLoad load() const;
  int64_t step_count() const { return step_count_; }
  int64_t prefill_tokens() const { return prefill_tokens_; }
  int64_t cached_tokens() const { return cached_tokens_; }
  absl::Duration busy_time() const { return busy_time_; }
  absl::Duration last_step_time() const { return runner_.last_step_time(); }

  // EngineSink.
  void Emit(const worker::StepReport& report) override {
    reports_.push_back(report);
  }
  void OnQueue(const worker::QueueNews& news) override { on_news_(news); }

 private:
  void Wake();
  void Step();
  void EndStep(const std::vector<worker::StepReport>& reports);

  VirtualTime& time_;
  const OnReport on_report_;
  const OnNews on_news_;
  CostedRunner runner_;
  std::unique_ptr<worker::Engine> engine_;
  // Outlives the worker in events that are still to come.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  bool awake_ = false;
  std::vector<worker::StepReport> reports_;  // of the step under way
  worker::EngineLoad load_;
  struct Submitted {
    int64_t tokens = 0;  // as WaitFor counts
    bool over_share = false;
  };
  std::vector<Submitted> unreported_;  // after the last report
  size_t taken_count_ = 0;             // of them, by the step under way
  int64_t step_count_ = 0;
  int64_t prefill_tokens_ = 0;
  int64_t cached_tokens_ = 0;
  absl::Duration busy_time_;
};

}  // namespace caravan::simulation

#endif  // CARAVAN_TESTS_SIMULATION_SIMULATED_WORKER_H_
