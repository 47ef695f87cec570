// A runner that computes tokens by counting, and waits where it is told to.
#ifndef CARAVAN_TESTS_WORKER_SERVER_GATED_RUNNER_H_
#define CARAVAN_TESTS_WORKER_SERVER_GATED_RUNNER_H_

#include <cstdint>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/status/errors.h"
#include "worker/engine/model_runner.h"

namespace caravan::testing {

// The token at output position p of a prompt of n tokens is 10 + (n + p) % 80,
// so that ids below 10 can be end ids that never come.
inline int32_t GatedToken(int32_t prompt_length, int32_t output_position) {
  return 10 + (prompt_length + output_position) % 80;
}

// ModelRunner's calls are the engine thread's; the gate is thread-safe.
class GatedRunner final : public worker::ModelRunner {
 public:
  // Steps wait from now on.
  void Hold() { SetOpen(false); }
  void Release() { SetOpen(true); }
  // The next step is the runner's end.
  void Break() {
    absl::MutexLock lock(&mutex_);
    broken_ = open_ = true;
  }
  // Waits until the engine waits for a held step.
  void AwaitHeldStep() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&waiting_));
  }

  void AddSequence(worker::SequenceSpec spec) override {
    const worker::SequenceId id = spec.id;
    sequences_.insert_or_assign(id, std::move(spec));
  }
  void DropSequence(worker::SequenceId id) override { sequences_.erase(id); }
  absl::Status Launch(worker::BatchPlan plan) override {
    plans_.push_back(std::move(plan));
    return absl::OkStatus();
  }
  absl::StatusOr<worker::StepResult> Collect() override {
    {
      absl::MutexLock lock(&mutex_);
      waiting_ = !open_;
      mutex_.Await(absl::Condition(&open_));
      waiting_ = false;
      if (broken_) return MakeError(Reason::kWorkerLost, "the runner broke");
    }
    worker::StepResult result = Compute(plans_.front());
    plans_.pop_front();
    return result;
  }
  int in_flight() const override { return static_cast<int>(plans_.size()); }

 private:
  void SetOpen(bool open) {
    absl::MutexLock lock(&mutex_);
    open_ = open;
  }

  worker::StepResult Compute(const worker::BatchPlan& plan) const {
    worker::StepResult result;
    result.step = plan.step;
    result.compute_time = absl::Milliseconds(1);
    for (const worker::PlanRow& row : plan.rows) {
      worker::RowResult& answer = result.rows.emplace_back();
      answer.sequence = row.sequence;
      if (!row.sample) continue;
      const worker::SequenceSpec& spec = sequences_.at(row.sequence);
      worker::ScoredToken token;
      token.token_id = GatedToken(static_cast<int32_t>(spec.prompt->size()),
                                  row.output_position);
      if (spec.sampling.logprob_count.has_value()) {
        token.logprob = -0.5f;
        token.rank = 1;
        for (int32_t i = 0; i < *spec.sampling.logprob_count; ++i) {
          token.candidates.push_back({.token_id = i, .logprob = -1.0f});
        }
      }
      answer.token = std::move(token);
    }
    return result;
  }

  absl::Mutex mutex_;
  bool open_ ABSL_GUARDED_BY(mutex_) = true;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool waiting_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<worker::BatchPlan> plans_;
  absl::flat_hash_map<worker::SequenceId, worker::SequenceSpec> sequences_;
};

}  // namespace caravan::testing

#endif  // CARAVAN_TESTS_WORKER_SERVER_GATED_RUNNER_H_
