#include "worker/shard/stage_thread.h"

#include <cfenv>
#include <chrono>
#include <optional>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

// The residual stream of the stage before, where the shard computes on it.
absl::Status TakeHidden(const StageStep& step, Shard& shard) {
  const std::span<float> hidden = shard.hidden();
  const size_t got = step.hidden == nullptr ? 0 : step.hidden->size_bytes();
  if (got != hidden.size_bytes()) {
    return MakeError(
        Reason::kInternal,
        StrCat("hidden states of step ", shard.plan().step, " must have ",
               hidden.size_bytes(), " bytes; got ", got));
  }
  if (got == 0) return absl::OkStatus();
  return step.hidden->CopyTo(std::as_writable_bytes(hidden).data());
}

}  // namespace

StageThread::StageThread(Shard* shard, StageOutput* output)
    : shard_(*shard), output_(*output), thread_([this] { Loop(); }) {}

StageThread::~StageThread() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
}

void StageThread::Push(StageCommand command) {
  absl::MutexLock lock(&mutex_);
  commands_.push_back(std::move(command));
}

void StageThread::Loop() {
  std::fesetenv(FE_DFL_ENV);  // rounding to nearest, subnormals kept
  while (true) {
    std::optional<StageCommand> command;
    {
      absl::MutexLock lock(&mutex_);
      const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !commands_.empty();
      };
      mutex_.Await(absl::Condition(&ready));
      if (stopping_) return;
      command = std::move(commands_.front());
      commands_.pop_front();
    }
    Apply(*std::move(command));
  }
}

void StageThread::Apply(StageCommand command) {
  const bool last = shard_.stage().last();
  if (SequenceSpec* const spec = std::get_if<SequenceSpec>(&command)) {
    if (!last) output_.OnAdd(*spec);
    shard_.AddSequence(std::move(*spec));
  } else if (const SequenceId* const id = std::get_if<SequenceId>(&command)) {
    if (!last) output_.OnDrop(*id);
    shard_.DropSequence(*id);
  } else {
    if (failure_.ok()) {
      failure_ = Compute(std::get<StageStep>(std::move(command)));
    }
    if (!failure_.ok()) output_.OnFailure(failure_);
  }
}

absl::Status StageThread::Compute(StageStep step) {
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [start] {
    return absl::FromChrono(std::chrono::steady_clock::now() - start);
  };
  CARAVAN_RETURN_IF_ERROR(shard_.Begin(std::move(step.plan)));
  if (!shard_.stage().first()) {
    CARAVAN_RETURN_IF_ERROR(TakeHidden(step, shard_));
    step.hidden.reset();
  }
  CARAVAN_RETURN_IF_ERROR(shard_.Forward());
  if (!shard_.stage().last()) {
    output_.OnHidden(shard_.plan(), shard_.hidden(), elapsed());
    return absl::OkStatus();
  }
  CARAVAN_ASSIGN_OR_RETURN(StepResult result, shard_.Sample());
  result.compute_time = elapsed();
  output_.OnResult(std::move(result));
  return absl::OkStatus();
}

}  // namespace caravan::worker
