// The worker's own metrics (caravan_worker_*), made once and fed by the
// engine's reports and the fate of requests.
#ifndef CARAVAN_WORKER_SERVER_WORKER_METRICS_H_
#define CARAVAN_WORKER_SERVER_WORKER_METRICS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "common/metrics/registry.h"
#include "worker/engine/engine.h"
#include "worker/server/request_observer.h"
#include "worker/server/worker_facts.h"

namespace caravan::worker {

// Thread-safe.
class WorkerMetrics final : public RequestObserver {
 public:
  // `registry` must outlive the metrics.
  explicit WorkerMetrics(MetricsRegistry* registry);

  void SetModel(const WorkerFacts& facts);
  void SetPlanned(const v1::MemoryPlan& plan);
  void SetAllocated(const v1::MemoryPlan& allocated);
  void SetLoadTime(absl::Duration time);
  void SetSessions(int64_t count);
  // Reads the resident memory of this process.
  void UpdateResidentBytes();

  void ObserveStep(const StepReport& report);
  // The counts of a moment without a step.
  void ObserveLoad(const EngineLoad& load);

  void OnSubmitted(const RequestShape& shape) override;
  void OnRefused(Reason reason) override;
  void OnPrompt(int32_t prompt_tokens, int32_t cached_tokens) override;
  void OnFirstToken(absl::Duration since_submit) override;
  void OnNextToken(absl::Duration since_last) override;
  void OnFinished(const FinishedChoice& choice) override;
  void OnFailed(Reason reason) override;
  void OnCancelled() override;
  void OnSessionDropped(Reason reason) override;

 private:
  void ObserveComputation(const StepReport& report);
  void CountError(Reason reason);
  void SetBytes(const MetricFamily& family, const v1::MemoryPlan& bytes);

  MetricsRegistry* const registry_;

  // Steps.
  Histogram* const decode_seconds_;
  Histogram* const prefill_seconds_;
  Histogram* const mixed_seconds_;
  Histogram* const step_rows_;
  Histogram* const step_tokens_;
  Counter* const decode_tokens_;
  Counter* const prefill_tokens_;
  Counter* const cached_tokens_;
  Counter* const generated_tokens_;
  Counter* const prefill_rows_;
  Counter* const dropped_rows_;
  Counter* const copied_blocks_;
  Counter* const parkings_;
  Counter* const resumes_;

  // Load.
  Gauge* const leased_blocks_;
  Gauge* const cached_blocks_;
  Gauge* const free_blocks_;
  Gauge* const running_;
  Gauge* const waiting_;
  Gauge* const parked_;
  Gauge* const queued_prefill_tokens_;
  Gauge* const sessions_;
  Gauge* const resident_bytes_;

  // Requests.
  Counter* const submits_;
  Counter* const prompt_tokens_;
  Counter* const prefix_hit_tokens_;
  Counter* const stopped_;
  Counter* const full_length_;
  Counter* const cancelled_;
  Histogram* const first_token_seconds_;
  Histogram* const next_token_seconds_;
};

// Resident bytes of this process; 0 where the system does not tell.
int64_t ResidentBytes();

// Lower-case hexadecimal digits of `bytes`.
std::string HexText(std::string_view bytes);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_WORKER_METRICS_H_
