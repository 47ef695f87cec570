#include "worker/server/worker_metrics.h"

#include <unistd.h>

#include <fstream>

#include "common/metrics/names.h"
#include "common/strings.h"

namespace caravan::worker {

WorkerMetrics::WorkerMetrics(MetricsRegistry* registry)
    : registry_(registry),
      decode_seconds_(registry->MakeHistogram(metrics::kWorkerStepSeconds,
                                              {{"phase", "decode"}})),
      prefill_seconds_(registry->MakeHistogram(metrics::kWorkerStepSeconds,
                                               {{"phase", "prefill"}})),
      mixed_seconds_(registry->MakeHistogram(metrics::kWorkerStepSeconds,
                                             {{"phase", "mixed"}})),
      step_rows_(registry->MakeHistogram(metrics::kWorkerStepRows, {})),
      step_tokens_(registry->MakeHistogram(metrics::kWorkerStepTokens, {})),
      decode_tokens_(
          registry->MakeCounter(metrics::kWorkerTokens, {{"kind", "decode"}})),
      prefill_tokens_(
          registry->MakeCounter(metrics::kWorkerTokens, {{"kind", "prefill"}})),
      cached_tokens_(
          registry->MakeCounter(metrics::kWorkerTokens, {{"kind", "cached"}})),
      generated_tokens_(
          registry->MakeCounter(metrics::kWorkerGeneratedTokens, {})),
      prefill_rows_(registry->MakeCounter(metrics::kWorkerPrefillRows, {})),
      dropped_rows_(registry->MakeCounter(metrics::kWorkerDroppedRows, {})),
      copied_blocks_(registry->MakeCounter(metrics::kWorkerCopiedBlocks, {})),
      parkings_(registry->MakeCounter(metrics::kWorkerParkings, {})),
      resumes_(registry->MakeCounter(metrics::kWorkerResumes, {})),
      leased_blocks_(
          registry->MakeGauge(metrics::kWorkerKvBlocks, {{"state", "leased"}})),
      cached_blocks_(
          registry->MakeGauge(metrics::kWorkerKvBlocks, {{"state", "cached"}})),
      free_blocks_(
          registry->MakeGauge(metrics::kWorkerKvBlocks, {{"state", "free"}})),
      running_(registry->MakeGauge(metrics::kWorkerSequences,
                                   {{"state", "running"}})),
      waiting_(registry->MakeGauge(metrics::kWorkerSequences,
                                   {{"state", "waiting"}})),
      parked_(registry->MakeGauge(metrics::kWorkerSequences,
                                  {{"state", "parked"}})),
      queued_prefill_tokens_(
          registry->MakeGauge(metrics::kWorkerQueuedPrefillTokens, {})),
      sessions_(registry->MakeGauge(metrics::kWorkerSessions, {})),
      resident_bytes_(registry->MakeGauge(metrics::kWorkerResidentBytes, {})),
      submits_(registry->MakeCounter(metrics::kWorkerSubmits, {})),
      prompt_tokens_(registry->MakeCounter(metrics::kWorkerPromptTokens, {})),
      prefix_hit_tokens_(
          registry->MakeCounter(metrics::kWorkerPrefixHitTokens, {})),
      stopped_(registry->MakeCounter(metrics::kWorkerRequests,
                                     {{"outcome", "stop"}})),
      full_length_(registry->MakeCounter(metrics::kWorkerRequests,
                                         {{"outcome", "length"}})),
      cancelled_(registry->MakeCounter(metrics::kWorkerRequests,
                                       {{"outcome", "cancelled"}})),
      first_token_seconds_(
          registry->MakeHistogram(metrics::kWorkerFirstTokenSeconds, {})),
      next_token_seconds_(
          registry->MakeHistogram(metrics::kWorkerNextTokenSeconds, {})) {}

void WorkerMetrics::SetModel(const WorkerFacts& facts) {
  const v1::ModelIdentity& identity = facts.model.identity();
  registry_
      ->MakeGauge(metrics::kWorkerModelInfo,
                  {{"model", facts.model.name()},
                   {"worker_id", facts.worker_id},
                   {"numerics_class", identity.numerics_class()},
                   {"weights_id", HexText(identity.weights_id())},
                   {"fingerprint", HexText(identity.fingerprint())}})
      ->Set(1);
}

void WorkerMetrics::SetBytes(const MetricFamily& family,
                             const v1::MemoryPlan& bytes) {
  const auto set = [&](const char* part, int64_t value) {
    registry_->MakeGauge(family, {{"part", part}})
        ->Set(static_cast<double>(value));
  };
  set("weights", bytes.weight_bytes());
  set("kv", bytes.kv_bytes());
  set("arena", bytes.arena_bytes());
}

void WorkerMetrics::SetPlanned(const v1::MemoryPlan& plan) {
  SetBytes(metrics::kWorkerPlannedBytes, plan);
}

void WorkerMetrics::SetAllocated(const v1::MemoryPlan& allocated) {
  SetBytes(metrics::kWorkerAllocatedBytes, allocated);
}

void WorkerMetrics::SetLoadTime(absl::Duration time) {
  registry_->MakeGauge(metrics::kWorkerLoadSeconds, {})
      ->Set(absl::ToDoubleSeconds(time));
}

void WorkerMetrics::SetSessions(int64_t count) {
  sessions_->Set(static_cast<double>(count));
}

void WorkerMetrics::UpdateResidentBytes() {
  resident_bytes_->Set(static_cast<double>(ResidentBytes()));
}

void WorkerMetrics::ObserveStep(const StepReport& report) {
  ObserveLoad(report.load);
  if (report.counters.rows > 0) ObserveComputation(report);
  generated_tokens_->Increment(static_cast<double>(report.tokens.size()));
  cached_tokens_->Increment(report.counters.cached_tokens);
  parkings_->Increment(report.counters.parked);
  resumes_->Increment(report.counters.resumed);
  copied_blocks_->Increment(report.counters.copied_blocks);
  dropped_rows_->Increment(report.counters.dropped_rows);
}

void WorkerMetrics::ObserveComputation(const StepReport& report) {
  const StepCounters& step = report.counters;
  Histogram* const seconds = step.prefill_tokens == 0  ? decode_seconds_
                             : step.decode_tokens == 0 ? prefill_seconds_
                                                       : mixed_seconds_;
  seconds->Observe(absl::ToDoubleSeconds(report.compute_time));
  step_rows_->Observe(step.rows);
  step_tokens_->Observe(step.prefill_tokens + step.decode_tokens);
  decode_tokens_->Increment(step.decode_tokens);
  prefill_tokens_->Increment(step.prefill_tokens);
  prefill_rows_->Increment(step.prefill_rows);
}

void WorkerMetrics::ObserveLoad(const EngineLoad& load) {
  leased_blocks_->Set(load.leased_blocks);
  cached_blocks_->Set(load.cached_blocks);
  free_blocks_->Set(load.free_blocks);
  running_->Set(load.running_sequences);
  waiting_->Set(load.waiting_sequences);
  parked_->Set(load.parked_sequences);
  queued_prefill_tokens_->Set(static_cast<double>(load.queued_prefill_tokens));
}

void WorkerMetrics::OnSubmitted(const RequestShape&) { submits_->Increment(); }

void WorkerMetrics::OnRefused(Reason reason) { CountError(reason); }

void WorkerMetrics::OnPrompt(int32_t prompt_tokens, int32_t cached_tokens) {
  prompt_tokens_->Increment(prompt_tokens);
  prefix_hit_tokens_->Increment(cached_tokens);
}

void WorkerMetrics::OnFirstToken(absl::Duration since_submit) {
  first_token_seconds_->Observe(absl::ToDoubleSeconds(since_submit));
}

void WorkerMetrics::OnNextToken(absl::Duration since_last) {
  next_token_seconds_->Observe(absl::ToDoubleSeconds(since_last));
}

void WorkerMetrics::OnFinished(const FinishedChoice& choice) {
  (choice.end == ChoiceEnd::kStop ? stopped_ : full_length_)->Increment();
}

void WorkerMetrics::OnFailed(Reason reason) {
  CountError(reason);
  registry_
      ->MakeCounter(metrics::kWorkerRequests,
                    {{"outcome", std::string(ReasonName(reason))}})
      ->Increment();
}

void WorkerMetrics::OnCancelled() { cancelled_->Increment(); }

void WorkerMetrics::OnSessionDropped(Reason reason) { CountError(reason); }

void WorkerMetrics::CountError(Reason reason) {
  registry_
      ->MakeCounter(metrics::kWorkerErrors,
                    {{"reason", std::string(ReasonName(reason))}})
      ->Increment();
}

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total_pages = 0;
  int64_t resident_pages = 0;
  if (!(statm >> total_pages >> resident_pages)) return 0;
  return resident_pages * sysconf(_SC_PAGESIZE);
}

std::string HexText(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

}  // namespace caravan::worker
