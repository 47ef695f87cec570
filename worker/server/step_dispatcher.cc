#include "worker/server/step_dispatcher.h"

#include <utility>

#include "common/status/errors.h"
#include "common/status/grpc_status.h"

namespace caravan::worker {
namespace {

template <typename Record>
void FillScore(const ScoredToken& token, Record* record) {
  record->set_token_id(token.token_id);
  if (token.logprob.has_value()) {
    record->set_logprob(*token.logprob);
    record->set_rank(token.rank);
  }
  for (const Candidate& candidate : token.candidates) {
    v1::Candidate* added = record->add_candidates();
    added->set_token_id(candidate.token_id);
    added->set_logprob(candidate.logprob);
  }
}

v1::FinishReason ToProto(ChoiceEnd end) {
  return end == ChoiceEnd::kStop ? v1::FINISH_REASON_STOP
                                 : v1::FINISH_REASON_LENGTH;
}

}  // namespace

// What a step gives to each session: few of them, so a list.
struct StepDispatcher::Batch {
  struct Part {
    std::shared_ptr<StepReceiver> receiver;
    v1::StepOutput output;
    std::vector<uint64_t> ended;
  };

  Part& PartOf(const Route& route) {
    for (Part& part : parts) {
      if (part.receiver == route.receiver) return part;
    }
    parts.push_back({.receiver = route.receiver, .output = {}, .ended = {}});
    return parts.back();
  }

  absl::Time now;
  std::vector<Part> parts;
};

void StepDispatcher::Open(GroupId group, uint64_t handle,
                          const RequestShape& shape,
                          std::span<const int32_t> choices,
                          std::shared_ptr<StepReceiver> receiver) {
  Route route;
  route.handle = handle;
  route.receiver = std::move(receiver);
  route.shape = shape;
  route.open_choices.insert(choices.begin(), choices.end());
  route.submitted = clock_->Now();
  absl::MutexLock lock(&mutex_);
  routes_.emplace(group, std::move(route));
}

bool StepDispatcher::Close(GroupId group) {
  absl::MutexLock lock(&mutex_);
  return routes_.erase(group) > 0;
}

StepDispatcher::ClosedChoices StepDispatcher::CloseChoices(
    GroupId group, std::span<const int32_t> choices) {
  ClosedChoices closed;
  absl::MutexLock lock(&mutex_);
  Route* const route = Find(group);
  if (route == nullptr) return closed;
  for (const int32_t choice : choices) {
    if (route->open_choices.erase(choice) == 0) continue;
    closed.choices.push_back(choice);
  }
  closed.last = route->open_choices.empty();
  if (closed.last) routes_.erase(group);
  return closed;
}

int64_t StepDispatcher::open_count() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(routes_.size());
}

bool StepDispatcher::AwaitNoneOpen(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(
      absl::Condition(this, &StepDispatcher::NoneOpenLocked), timeout);
}

void StepDispatcher::Dispatch(const StepReport& report, const v1::Load& load) {
  Batch batch{.now = clock_->Now(), .parts = {}};
  {
    absl::MutexLock lock(&mutex_);
    for (const PromptEvent& event : report.prompts) AddPrompt(event, batch);
    for (const TokenEvent& event : report.tokens) AddToken(event, batch);
    for (const FinishEvent& event : report.finishes) AddFinish(event, batch);
    for (const ErrorEvent& event : report.errors) AddError(event, batch);
    delivering_ = true;
  }
  for (Batch::Part& part : batch.parts) {
    part.output.set_step(report.step);
    *part.output.mutable_load() = load;
  }
  Deliver(std::move(batch));
}

void StepDispatcher::Dispatch(const QueueNews& news) {
  Batch batch{.now = clock_->Now(), .parts = {}};
  {
    absl::MutexLock lock(&mutex_);
    for (const GroupId group : news.queued) {
      Route* const route = Find(group);
      if (route == nullptr) continue;
      batch.PartOf(*route).output.add_queued(route->handle);
    }
    for (const GroupId group : news.started) {
      Route* const route = Find(group);
      if (route == nullptr) continue;
      batch.PartOf(*route).output.add_started(route->handle);
    }
    delivering_ = true;
  }
  Deliver(std::move(batch));
}

void StepDispatcher::Deliver(Batch batch) {
  for (Batch::Part& part : batch.parts) {
    part.receiver->Deliver(std::move(part.output), part.ended);
  }
  absl::MutexLock lock(&mutex_);
  delivering_ = false;
}

StepDispatcher::Route* StepDispatcher::Find(GroupId group) {
  const auto found = routes_.find(group);
  return found == routes_.end() ? nullptr : &found->second;
}

StepDispatcher::Route* StepDispatcher::FindOpen(GroupId group, int32_t choice) {
  Route* const route = Find(group);
  const bool open = route != nullptr && route->open_choices.contains(choice);
  return open ? route : nullptr;
}

void StepDispatcher::AddPrompt(const PromptEvent& event, Batch& batch) {
  Route* const route = Find(event.group);
  if (route == nullptr) return;
  v1::PromptRecord* const record = batch.PartOf(*route).output.add_prompts();
  record->set_handle(route->handle);
  record->set_cached_token_count(event.cached_token_count);
  int32_t position = event.first_scored_position;
  for (const ScoredToken& score : event.scores) {
    v1::PromptTokenLogprob* const scored = record->add_logprobs();
    scored->set_position(position++);
    FillScore(score, scored);
  }
  if (!std::exchange(route->has_prompt, true)) {
    observer_->OnPrompt(route->shape.prompt_tokens, event.cached_token_count);
  }
}

void StepDispatcher::AddToken(const TokenEvent& event, Batch& batch) {
  Route* const route = FindOpen(event.group, event.choice);
  if (route == nullptr) return;
  v1::TokenRecord* const record = batch.PartOf(*route).output.add_tokens();
  record->set_handle(route->handle);
  record->set_choice(event.choice);
  record->set_position(event.position);
  FillScore(event.token, record);
  ObserveToken(*route, event.choice, batch.now);
}

void StepDispatcher::ObserveToken(Route& route, int32_t choice,
                                  absl::Time now) {
  const auto [times, first] = route.choices.try_emplace(choice);
  if (first) {
    times->second.first_token = now;
  } else {
    observer_->OnNextToken(now - times->second.last_token);
  }
  times->second.last_token = now;
  if (!std::exchange(route.has_token, true)) {
    observer_->OnFirstToken(now - route.submitted);
  }
}

void StepDispatcher::AddFinish(const FinishEvent& event, Batch& batch) {
  Route* const route = FindOpen(event.group, event.choice);
  if (route == nullptr) return;
  Batch::Part& part = batch.PartOf(*route);
  v1::ChoiceFinish* const finish = part.output.add_finishes();
  finish->set_handle(route->handle);
  finish->set_choice(event.choice);
  finish->set_reason(ToProto(event.end));
  if (event.stop_token_id.has_value()) {
    finish->set_stop_token_id(*event.stop_token_id);
  }
  finish->set_output_token_count(event.output_token_count);
  ObserveFinish(*route, event, batch.now);
  route->open_choices.erase(event.choice);
  if (!route->open_choices.empty()) return;
  part.ended.push_back(route->handle);
  routes_.erase(event.group);
}

void StepDispatcher::ObserveFinish(const Route& route, const FinishEvent& event,
                                   absl::Time now) {
  FinishedChoice choice;
  choice.end = event.end;
  choice.prompt_tokens = route.shape.prompt_tokens;
  choice.output_tokens = event.output_token_count;
  choice.since_submit = now - route.submitted;
  const auto times = route.choices.find(event.choice);
  if (times != route.choices.end()) {
    choice.since_first_token = now - times->second.first_token;
  }
  observer_->OnFinished(choice);
}

void StepDispatcher::AddError(const ErrorEvent& event, Batch& batch) {
  Route* const route = Find(event.group);
  if (route == nullptr) return;
  Batch::Part& part = batch.PartOf(*route);
  v1::HandleError* const error = part.output.add_errors();
  error->set_handle(route->handle);
  *error->mutable_error() = ToProtoError(event.status);
  part.ended.push_back(route->handle);
  observer_->OnFailed(ReasonOf(event.status));
  routes_.erase(event.group);
}

}  // namespace caravan::worker
