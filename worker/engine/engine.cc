#include "worker/engine/engine.h"

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/engine/inbox.h"
#include "worker/engine/scheduler.h"

namespace caravan::worker {
namespace {

// How long the queue takes to move on by a tenth, from how fast sequences
// leave it.
class QueuePace {
 public:
  // `left` sequences left the queue until `now`; `queued` still wait.
  void Observe(absl::Time now, int32_t left, int32_t queued) {
    queued_ = queued;
    if (left == 0) return;
    if (last_ != absl::InfinitePast()) {
      const double seconds = absl::ToDoubleSeconds(now - last_) / left;
      seconds_per_sequence_ += 0.2 * (seconds - seconds_per_sequence_);
    }
    last_ = now;
  }
  absl::Duration RetryAfter() const {
    const double seconds = seconds_per_sequence_ * std::max(1, queued_ / 10);
    return absl::Seconds(std::clamp(seconds, 0.1, 60.0));
  }

 private:
  absl::Time last_ = absl::InfinitePast();
  double seconds_per_sequence_ = 1;
  int32_t queued_ = 0;
};

bool HasNews(const StepReport& report) {
  return report.step > 0 || !report.prompts.empty() || !report.tokens.empty() ||
         !report.finishes.empty() || !report.errors.empty() ||
         !report.works.empty() || !report.kv_changes.stored.empty() ||
         !report.kv_changes.removed.empty();
}

}  // namespace

struct Engine::State {
  State(const EngineOptions& engine_options, ModelRunner* model_runner,
        EngineSink* engine_sink, const Clock* engine_clock)
      : options(engine_options),
        runner(*model_runner),
        sink(*engine_sink),
        clock(*engine_clock),
        inbox(engine_options),
        scheduler(engine_options) {
    published_load.free_blocks = options.block_count;
  }

  void TakeCommands();
  void TakeCancels();
  absl::Status Launch(PlannedStep planned);
  absl::StatusOr<StepReport> CollectOldest();
  StepReport Publish(StepReport report);
  StepReport PublishIdle();
  absl::Status Lose(const absl::Status& cause);

  const EngineOptions options;
  ModelRunner& runner;
  EngineSink& sink;
  const Clock& clock;
  Inbox inbox;

  // Engine thread only.
  Scheduler scheduler;
  QueuePace pace;
  absl::Status lost;

  mutable absl::Mutex mutex;
  EngineLoad published_load ABSL_GUARDED_BY(mutex);
  absl::flat_hash_set<kv::BlockHash> published_hashes ABSL_GUARDED_BY(mutex);
};

// Cancels first: one that came after its group finds it in the scheduler, and
// one that came before it took it out of the inbox itself.
void Engine::State::TakeCommands() {
  for (GroupRequest& request : inbox.TakeGroups()) {
    scheduler.Add(std::move(request));
  }
  TakeCancels();
}

void Engine::State::TakeCancels() {
  for (const Cancellation& cancel : inbox.TakeCancels()) {
    if (cancel.choices.empty()) {
      scheduler.Cancel(cancel.group);
    } else {
      scheduler.CancelChoices(cancel.group, cancel.choices);
    }
  }
}

absl::Status Engine::State::Launch(PlannedStep planned) {
  for (const SequenceId id : planned.dropped) runner.DropSequence(id);
  for (SequenceSpec& spec : planned.added) runner.AddSequence(std::move(spec));
  if (!planned.news.empty()) sink.OnQueue(planned.news);
  if (planned.plan.empty()) return absl::OkStatus();
  return runner.Launch(std::move(planned.plan));
}

absl::StatusOr<StepReport> Engine::State::CollectOldest() {
  CARAVAN_ASSIGN_OR_RETURN(StepResult result, runner.Collect());
  TakeCancels();  // before results are believed
  return scheduler.Commit(std::move(result));
}

// Lets others see the books, then the sink the events, then that groups are
// gone: whoever sees Drained() has seen their last event.
StepReport Engine::State::Publish(StepReport report) {
  {
    absl::MutexLock lock(&mutex);
    published_load = report.load;
    for (const kv::BlockHash& hash : report.kv_changes.removed) {
      published_hashes.erase(hash);
    }
    published_hashes.insert(report.kv_changes.stored.begin(),
                            report.kv_changes.stored.end());
  }
  if (HasNews(report)) sink.Emit(report);
  const int32_t queued = scheduler.queued_count();
  pace.Observe(clock.Now(), report.counters.admitted, queued);
  inbox.Update(scheduler.TakeEnded(), queued, pace.RetryAfter());
  return report;
}

StepReport Engine::State::PublishIdle() {
  if (!scheduler.empty()) {
    // No rule of the scheduler leads here; better an error than silence.
    LogError("engine_stuck", {{"waiting", scheduler.Load().waiting_sequences}});
    scheduler.FailAll(MakeError(
        Reason::kInternal, "the scheduler has sequences and nothing to run"));
  }
  StepReport report = scheduler.TakeReport();
  report.idle = true;
  return Publish(std::move(report));
}

// The runner, and with it every block, is gone.
absl::Status Engine::State::Lose(const absl::Status& cause) {
  if (!lost.ok()) return lost;
  lost = MakeError(Reason::kWorkerLost,
                   StrCat("the model runner failed: ", ToStd(cause.message())));
  LogError("engine_lost", {{"status", cause}});
  inbox.Close(lost);
  TakeCommands();
  scheduler.FailAll(lost);
  Publish(scheduler.TakeReport());
  return lost;
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const EngineOptions& options, ModelRunner* runner, EngineSink* sink,
    const Clock* clock) {
  CARAVAN_RETURN_IF_ERROR(options.Validate());
  return std::unique_ptr<Engine>(
      new Engine(std::make_unique<State>(options, runner, sink, clock)));
}

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::~Engine() = default;

absl::Status Engine::Submit(GroupRequest request) {
  return state_->inbox.Submit(std::move(request));
}

void Engine::Cancel(GroupId id) { state_->inbox.Cancel(id); }

void Engine::CancelChoices(GroupId id, std::vector<int32_t> choices) {
  state_->inbox.CancelChoices(id, std::move(choices));
}

void Engine::StartDrain() {
  state_->inbox.Close(
      MakeError(Reason::kDraining, "the worker drains and takes no new work"));
}

bool Engine::Drained() const { return !state_->inbox.AnyAlive(); }

EngineLoad Engine::load() const {
  const Inbox::Unreported unreported = state_->inbox.unreported();
  absl::MutexLock lock(&state_->mutex);
  EngineLoad load = state_->published_load;
  load.waiting_sequences += unreported.sequences;
  load.queued_prefill_tokens += unreported.tokens;
  return load;
}

std::vector<kv::BlockHash> Engine::CachedHashes() const {
  absl::MutexLock lock(&state_->mutex);
  return {state_->published_hashes.begin(), state_->published_hashes.end()};
}

absl::Status Engine::Audit() const { return state_->scheduler.Audit(); }

absl::StatusOr<StepReport> Engine::Step() {
  State& s = *state_;
  CARAVAN_RETURN_IF_ERROR(s.lost);
  s.TakeCommands();
  while (s.runner.in_flight() < s.options.depth) {
    PlannedStep planned = s.scheduler.Plan(s.clock.Now());
    const bool empty = planned.plan.empty();
    const absl::Status launched = s.Launch(std::move(planned));
    if (!launched.ok()) return s.Lose(launched);
    if (empty) break;
  }
  if (s.runner.in_flight() == 0) return s.PublishIdle();

  absl::StatusOr<StepReport> report = s.CollectOldest();
  if (!report.ok()) return s.Lose(report.status());
  return s.Publish(*std::move(report));
}

absl::Status Engine::Run() {
  State& s = *state_;
  bool idle = true;
  while (idle ? s.inbox.AwaitWork() : !s.inbox.stopped()) {
    CARAVAN_ASSIGN_OR_RETURN(const StepReport report, Step());
    idle = report.idle;
  }
  return absl::OkStatus();
}

void Engine::Stop() { state_->inbox.Stop(); }

}  // namespace caravan::worker
