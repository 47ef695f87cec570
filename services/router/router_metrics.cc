#include "services/router/router_metrics.h"

#include <algorithm>

#include "common/metrics/names.h"
#include "common/status/errors.h"

namespace caravan::router {
namespace {

// In the order of ReplicaState.
constexpr std::array<std::string_view, 4> kStateNames = {"ready", "suspect",
                                                         "draining", "broken"};

}  // namespace

RouterMetrics::RouterMetrics(MetricsRegistry* registry, std::string_view policy)
    : registry_(registry),
      policy_(policy),
      ok_(registry->MakeCounter(metrics::kRouterPlacements,
                                {{"policy", policy_}, {"outcome", "ok"}})),
      place_seconds_(registry->MakeHistogram(metrics::kRouterPlaceSeconds, {})),
      matched_blocks_(
          registry->MakeHistogram(metrics::kRouterMatchedBlocks, {})),
      matched_tokens_(registry->MakeCounter(metrics::kRouterMatchedTokens, {})),
      prompt_tokens_(registry->MakeCounter(metrics::kRouterPromptTokens, {})),
      registrations_(registry->MakeCounter(metrics::kRouterRegistrations, {})),
      lost_workers_(registry->MakeCounter(metrics::kRouterLostWorkers, {})),
      snapshot_requests_(
          registry->MakeCounter(metrics::kRouterSnapshotRequests, {})),
      indexed_blocks_(registry->MakeGauge(metrics::kRouterIndexedBlocks, {})),
      dropped_blocks_(
          registry->MakeCounter(metrics::kRouterDroppedBlocks, {})) {
  for (size_t i = 0; i < workers_.size(); ++i) {
    workers_[i] = registry->MakeGauge(metrics::kRouterWorkers,
                                      {{"state", std::string(kStateNames[i])}});
  }
}

void RouterMetrics::RecordPlacement(const absl::Status& status,
                                    absl::Duration time) {
  place_seconds_->Observe(absl::ToDoubleSeconds(time));
  if (status.ok()) return ok_->Increment();
  registry_
      ->MakeCounter(metrics::kRouterPlacements,
                    {{"policy", policy_},
                     {"outcome", std::string(ReasonName(ReasonOf(status)))}})
      ->Increment();
}

void RouterMetrics::RecordMatch(int matched_blocks, int block_size,
                                int prompt_tokens) {
  matched_blocks_->Observe(matched_blocks);
  matched_tokens_->Increment(std::min(double{1} * matched_blocks * block_size,
                                      static_cast<double>(prompt_tokens)));
  prompt_tokens_->Increment(prompt_tokens);
}

void RouterMetrics::RecordRefusal(const absl::Status& status) {
  registry_
      ->MakeCounter(metrics::kRouterRefusals,
                    {{"reason", std::string(ReasonName(ReasonOf(status)))}})
      ->Increment();
}

void RouterMetrics::SetWorkers(const std::array<int, 4>& counts) {
  for (size_t i = 0; i < counts.size(); ++i) workers_[i]->Set(counts[i]);
}

void RouterMetrics::SetIndex(int64_t entries, int64_t dropped_in_all) {
  indexed_blocks_->Set(static_cast<double>(entries));
  const int64_t seen = dropped_seen_.exchange(dropped_in_all);
  dropped_blocks_->Increment(
      static_cast<double>(std::max<int64_t>(dropped_in_all - seen, 0)));
}

}  // namespace caravan::router
