#include "tests/simulation/simulated_worker.h"

#include <cstdlib>

namespace caravan::simulation {
namespace {

StepWork WorkOf(const worker::BatchPlan& plan) {
  StepWork work;
  for (const worker::PlanRow& row : plan.rows) {
    const auto tokens = static_cast<double>(row.tokens.size());
    if (row.sample && row.tokens.size() == 1) {
      work.decode_rows += 1;
      work.kv_tokens += row.first_position;
    } else {
      work.prefill_tokens += tokens;
    }
  }
  return work;
}

}  // namespace

absl::Status CostedRunner::Launch(worker::BatchPlan plan) {
  last_work_ = WorkOf(plan);
  last_step_time_ = cost_.Of(last_work_);
  plans_.push_back(std::move(plan));
  return absl::OkStatus();
}

absl::StatusOr<worker::StepResult> CostedRunner::Collect() {
  const worker::BatchPlan plan = std::move(plans_.front());
  plans_.pop_front();
  worker::StepResult result;
  result.step = plan.step;
  result.compute_time = last_step_time_;
  for (const worker::PlanRow& row : plan.rows) {
    worker::RowResult& computed = result.rows.emplace_back();
    computed.sequence = row.sequence;
    if (row.sample) computed.token.emplace();
  }
  return result;
}

SimulatedWorker::SimulatedWorker(const worker::EngineOptions& options,
                                 const StepCost& cost, VirtualTime* time,
                                 OnReport on_report, OnNews on_news)
    : time_(*time),
      on_report_(std::move(on_report)),
      on_news_(std::move(on_news)),
      runner_(cost) {
  auto engine = worker::Engine::Create(options, &runner_, this, time);
  if (!engine.ok()) std::abort();
  engine_ = *std::move(engine);
}

absl::Status SimulatedWorker::Submit(worker::GroupRequest request) {
  const Submitted submitted = {
      .tokens = worker::WaitFor(
          request, static_cast<int64_t>(request.prompt->size() +
                                        request.choices.front().output.size())),
      .over_share = request.over_share};
  const absl::Status status = engine_->Submit(std::move(request));
  if (!status.ok()) return status;
  unreported_.push_back(submitted);
  Wake();
  return status;
}

void SimulatedWorker::Cancel(worker::GroupId id) {
  engine_->Cancel(id);
  Wake();
}

void SimulatedWorker::Wake() {
  if (std::exchange(awake_, true)) return;
  time_.After(absl::ZeroDuration(), [this, alive = alive_] {
    if (*alive) Step();
  });
}

// The engine is asked at the step's beginning; what it says is told at its
// end, and what comes in between waits for the next step, as it really does.
void SimulatedWorker::Step() {
  taken_count_ = unreported_.size();
  const absl::StatusOr<worker::StepReport> report = engine_->Step();
  if (!report.ok()) std::abort();
  std::vector<worker::StepReport> reports = std::exchange(reports_, {});
  if (report->step == 0) {
    awake_ = false;
    EndStep(reports);
    return;
  }
  ++step_count_;
  busy_time_ += runner_.last_step_time();
  time_.After(runner_.last_step_time(),
              [this, alive = alive_, reports = std::move(reports)] {
                if (!*alive) return;
                EndStep(reports);
                if (*alive) Step();
              });
}

worker::EngineLoad SimulatedWorker::load() const {
  worker::EngineLoad load = load_;
  for (const Submitted& submitted : unreported_) {
    ++load.waiting_sequences;
    load.yielding.waiting_sequences += submitted.over_share ? 1 : 0;
    load.queued_prefill_tokens += submitted.tokens;
  }
  return load;
}

void SimulatedWorker::EndStep(const std::vector<worker::StepReport>& reports) {
  unreported_.erase(
      unreported_.begin(),
      unreported_.begin() + static_cast<std::ptrdiff_t>(taken_count_));
  taken_count_ = 0;
  for (const worker::StepReport& report : reports) {
    load_ = report.load;
    prefill_tokens_ += report.counters.prefill_tokens;
    cached_tokens_ += report.counters.cached_tokens;
    on_report_(report);
  }
}

}  // namespace caravan::simulation
