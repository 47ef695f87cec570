// What a stage of several says of itself (caravan_worker_stage_*).
#ifndef CARAVAN_WORKER_SERVER_STAGE_METRICS_H_
#define CARAVAN_WORKER_SERVER_STAGE_METRICS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/metrics/registry.h"
#include "worker/shard/later_stage.h"

namespace caravan::worker {

// Thread-safe.
class StageMetrics final : public StageObserver {
 public:
  // `registry` must outlive the metrics.
  explicit StageMetrics(MetricsRegistry* registry);

  // A plan went to the next stage.
  void OnSent(int64_t tokens, size_t bytes);
  // What a plan's way to the next stage and its result's way back took, the
  // time that it spent there left out.
  void OnHop(absl::Duration time);
  // This stage computed its part of a step.
  void OnComputed(absl::Duration time) override;
  void OnFormed();
  // A chain that stood ended.
  void OnLost(const absl::Status& status);

 private:
  MetricsRegistry* const registry_;
  Counter* const sent_tokens_;
  Counter* const sent_bytes_;
  Histogram* const hop_seconds_;
  Histogram* const compute_seconds_;
  Counter* const formed_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_STAGE_METRICS_H_
