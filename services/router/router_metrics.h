// The router's metrics: handles made once.
//
// Thread-safe.
#ifndef CARAVAN_SERVICES_ROUTER_ROUTER_METRICS_H_
#define CARAVAN_SERVICES_ROUTER_ROUTER_METRICS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/metrics/registry.h"

namespace caravan::router {

class RouterMetrics {
 public:
  RouterMetrics(MetricsRegistry* registry, std::string_view policy);

  // One answered placement.
  void RecordPlacement(const absl::Status& status, absl::Duration time);
  // What the chosen replica had of the prompt.
  void RecordMatch(int matched_blocks, int block_size, int prompt_tokens);
  void RecordRefusal(const absl::Status& status);
  // Indexed by ReplicaState.
  void SetWorkers(const std::array<int, 4>& counts);
  void SetIndex(int64_t entries, int64_t dropped_in_all);

  Counter& registrations() { return *registrations_; }
  Counter& lost_workers() { return *lost_workers_; }
  Counter& snapshot_requests() { return *snapshot_requests_; }

 private:
  MetricsRegistry* const registry_;
  const std::string policy_;
  Counter* const ok_;
  Histogram* const place_seconds_;
  Histogram* const matched_blocks_;
  Counter* const matched_tokens_;
  Counter* const prompt_tokens_;
  Counter* const registrations_;
  Counter* const lost_workers_;
  Counter* const snapshot_requests_;
  Gauge* const indexed_blocks_;
  Counter* const dropped_blocks_;
  std::atomic<int64_t> dropped_seen_ = 0;
  std::array<Gauge*, 4> workers_;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_ROUTER_METRICS_H_
