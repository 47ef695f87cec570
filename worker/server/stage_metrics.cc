#include "worker/server/stage_metrics.h"

#include <algorithm>
#include <string>

#include "common/metrics/names.h"
#include "common/status/errors.h"

namespace caravan::worker {

StageMetrics::StageMetrics(MetricsRegistry* registry)
    : registry_(registry),
      sent_tokens_(registry->MakeCounter(metrics::kWorkerStageSentTokens, {})),
      sent_bytes_(registry->MakeCounter(metrics::kWorkerStageSentBytes, {})),
      hop_seconds_(
          registry->MakeHistogram(metrics::kWorkerStageHopSeconds, {})),
      compute_seconds_(
          registry->MakeHistogram(metrics::kWorkerStageComputeSeconds, {})),
      formed_(registry->MakeCounter(metrics::kWorkerChainsFormed, {})) {}

void StageMetrics::OnSent(int64_t tokens, size_t bytes) {
  sent_tokens_->Increment(static_cast<double>(tokens));
  sent_bytes_->Increment(static_cast<double>(bytes));
}

void StageMetrics::OnHop(absl::Duration time) {
  hop_seconds_->Observe(std::max(0.0, absl::ToDoubleSeconds(time)));
}

void StageMetrics::OnComputed(absl::Duration time) {
  compute_seconds_->Observe(absl::ToDoubleSeconds(time));
}

void StageMetrics::OnFormed() { formed_->Increment(); }

void StageMetrics::OnLost(const absl::Status& status) {
  registry_
      ->MakeCounter(metrics::kWorkerChainsLost,
                    {{"reason", std::string(ReasonName(ReasonOf(status)))}})
      ->Increment();
}

}  // namespace caravan::worker
