// The names that dashboards, autoscalers and routers of other serving systems
// already read. They say what caravan_worker_* says; their names, help texts,
// labels and buckets are here and nowhere else.
#ifndef CARAVAN_WORKER_SERVER_VLLM_METRICS_H_
#define CARAVAN_WORKER_SERVER_VLLM_METRICS_H_

#include <cstdint>
#include <string>

#include "common/metrics/registry.h"
#include "worker/engine/engine.h"
#include "worker/server/request_observer.h"

namespace caravan::worker {

// Thread-safe.
class VllmMetrics final : public RequestObserver {
 public:
  // `registry` must outlive the metrics. `block_count`: KV blocks in all.
  VllmMetrics(MetricsRegistry* registry, const std::string& model_name,
              int32_t block_count);

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
  const double block_count_;
  Gauge* const running_;
  Gauge* const waiting_;
  Gauge* const kv_usage_;
  Counter* const preemptions_;
  Counter* const prompt_tokens_;
  Counter* const generation_tokens_;
  Counter* const prefix_queries_;
  Counter* const prefix_hits_;
  Counter* const success_stop_;
  Counter* const success_length_;
  Counter* const corrupted_;
  Counter* const rejections_;
  Histogram* const iteration_tokens_;
  Histogram* const first_token_seconds_;
  Histogram* const next_token_seconds_;
  Histogram* const request_seconds_;
  Histogram* const prefill_seconds_;
  Histogram* const decode_seconds_;
  Histogram* const request_prompt_tokens_;
  Histogram* const request_generation_tokens_;
  Histogram* const request_max_tokens_;
  Histogram* const request_n_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_VLLM_METRICS_H_
