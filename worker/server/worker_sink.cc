#include "worker/server/worker_sink.h"

#include "worker/server/request_trail.h"

namespace caravan::worker {

void MetricsObserver::OnSubmitted(const RequestShape& shape) {
  own_->OnSubmitted(shape);
  vllm_->OnSubmitted(shape);
}

void MetricsObserver::OnRefused(Reason reason) {
  own_->OnRefused(reason);
  vllm_->OnRefused(reason);
}

void MetricsObserver::OnPrompt(int32_t prompt_tokens, int32_t cached_tokens) {
  own_->OnPrompt(prompt_tokens, cached_tokens);
  vllm_->OnPrompt(prompt_tokens, cached_tokens);
}

void MetricsObserver::OnFirstToken(absl::Duration since_submit) {
  own_->OnFirstToken(since_submit);
  vllm_->OnFirstToken(since_submit);
}

void MetricsObserver::OnNextToken(absl::Duration since_last) {
  own_->OnNextToken(since_last);
  vllm_->OnNextToken(since_last);
}

void MetricsObserver::OnFinished(const FinishedChoice& choice) {
  own_->OnFinished(choice);
  vllm_->OnFinished(choice);
}

void MetricsObserver::OnFailed(Reason reason) {
  own_->OnFailed(reason);
  vllm_->OnFailed(reason);
}

void MetricsObserver::OnCancelled() {
  own_->OnCancelled();
  vllm_->OnCancelled();
}

void MetricsObserver::OnSessionDropped(Reason reason) {
  own_->OnSessionDropped(reason);
  vllm_->OnSessionDropped(reason);
}

// Sessions first: the other readers can wait.
void WorkerSink::Emit(const StepReport& report) {
  const v1::Load load = parts_.load->Update(report);
  LogTrail(report);
  parts_.dispatcher->Dispatch(report, load);
  parts_.metrics->ObserveStep(report);
  parts_.vllm->ObserveStep(report);
  if (!parts_.feed->Apply(report.kv_changes)) return;
  if (KvEventListener* const listener = listener_.load()) {
    listener->NotifyEvents();
  }
}

}  // namespace caravan::worker
