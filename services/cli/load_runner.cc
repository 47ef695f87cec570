#include "services/cli/load_runner.h"

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace caravan::cli {
namespace {

// The times of one running request. Its events come one after the other.
class Recorder {
 public:
  Recorder(LoadOutcome& outcome, const Clock& clock)
      : outcome_(outcome), clock_(clock), start_(clock.Now()) {}

  void AddTokens(int32_t count) {
    const absl::Time now = clock_.Now();
    if (outcome_.output_tokens == 0) {
      outcome_.first_token = now - start_;
    } else {
      outcome_.gaps.push_back(now - last_);
    }
    outcome_.output_tokens += count;
    last_ = now;
  }

  void Finish(absl::Status status) {
    outcome_.status = std::move(status);
    outcome_.total = clock_.Now() - start_;
  }

 private:
  LoadOutcome& outcome_;
  const Clock& clock_;
  const absl::Time start_;
  absl::Time last_;
};

// Thread-safe.
class Run {
 public:
  Run(const LoadPlanOptions& options, LoadClient& client, const Clock& clock)
      : options_(options),
        client_(client),
        clock_(clock),
        plan_(MakeLoadPlan(options)),
        start_(clock.Now()) {
    result_.outcomes.resize(plan_.size());
  }

  LoadResult Execute(int32_t concurrency) {
    for (size_t index = 0; index < plan_.size(); ++index) {
      if (options_.rate > 0) {
        WaitForArrival(plan_[index].arrival);
      } else {
        WaitForSlot(concurrency);
      }
      StartRequest(index);
    }
    WaitForSlot(/*concurrency=*/1);
    result_.wall = clock_.Now() - start_;
    return std::move(result_);
  }

 private:
  void WaitForArrival(absl::Duration arrival) {
    absl::MutexLock lock(&mutex_);
    const auto never = +[](Run*) { return false; };
    const absl::Duration left = start_ + arrival - clock_.Now();
    mutex_.AwaitWithTimeout(absl::Condition(never, this), left);
  }

  // Until fewer than `concurrency` requests run.
  void WaitForSlot(int32_t concurrency) {
    absl::MutexLock lock(&mutex_);
    limit_ = concurrency;
    mutex_.Await(absl::Condition(
        +[](Run* run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(run->mutex_) {
          return run->running_ < run->limit_;
        },
        this));
  }

  void StartRequest(size_t index) {
    const PlannedRequest& planned = plan_[index];
    LoadRequest request;
    request.prompt_ids = PromptOf(options_, planned);
    request.output_tokens = planned.output_tokens;
    request.seed = planned.seed;
    LoadOutcome& outcome = result_.outcomes[index];
    outcome.prompt_tokens = planned.prompt_tokens;
    {
      absl::MutexLock lock(&mutex_);
      ++running_;
    }
    const auto recorder = std::make_shared<Recorder>(outcome, clock_);
    client_.Start(
        request, [recorder](int32_t count) { recorder->AddTokens(count); },
        [this, recorder](absl::Status status) {
          recorder->Finish(std::move(status));
          absl::MutexLock lock(&mutex_);
          --running_;
        });
  }

  const LoadPlanOptions& options_;
  LoadClient& client_;
  const Clock& clock_;
  const std::vector<PlannedRequest> plan_;
  const absl::Time start_;
  LoadResult result_;  // each outcome is its request's until that is done
  absl::Mutex mutex_;
  int32_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  int32_t limit_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

LoadResult RunLoad(const LoadPlanOptions& plan, int32_t concurrency,
                   LoadClient& client, const Clock& clock) {
  return Run(plan, client, clock).Execute(concurrency);
}

}  // namespace caravan::cli
