#include "gateway/admission/share_meter.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace caravan::gateway {
namespace {

// Times the median load that are fair, and requests beyond that are: what
// chance makes of tenants that are alike.
constexpr double kGenerous = 2;
constexpr double kFewRequests = 4;
// Loads are forgotten in steps of this.
constexpr absl::Duration kRefresh = absl::Milliseconds(100);
// A load below this part of a request is forgotten.
constexpr double kForgotten = 0.05;
constexpr double kNewest = 0.02;

}  // namespace

void ShareMeter::Ask(const std::string& tenant, double weight, double cost,
                     absl::Time now) {
  Forget(now);
  mean_cost_ += (mean_cost_ > 0 ? kNewest : 1) * (cost - mean_cost_);
  Load& load = loads_[tenant];
  load.weight = weight;
  load.cost += cost;
  changed_ = true;
}

void ShareMeter::Correct(const std::string& tenant, double more,
                         absl::Time now) {
  Forget(now);
  const auto it = loads_.find(tenant);
  if (it == loads_.end()) return;
  it->second.cost = std::max(0.0, it->second.cost + more);
  changed_ = true;
}

bool ShareMeter::OverShare(const std::string& tenant, absl::Time now) {
  Forget(now);
  const auto it = loads_.find(tenant);
  if (it == loads_.end() || !IsOver(it->second)) return false;
  // By a median that may be of before a burst of all.
  if (std::exchange(changed_, false)) median_ = MedianLoad();
  return IsOver(it->second);
}

bool ShareMeter::IsOver(const Load& load) const {
  return load.cost >
         kGenerous * median_ * load.weight + kFewRequests * mean_cost_;
}

void ShareMeter::Forget(absl::Time now) {
  if (now < forgot_ + kRefresh) return;
  const double kept = std::exp(-absl::FDivDuration(now - forgot_, window_));
  forgot_ = now;
  for (auto& [tenant, load] : loads_) load.cost *= kept;
  std::erase_if(loads_, [this](const auto& entry) {
    return entry.second.cost <= kForgotten * mean_cost_;
  });
  median_ = MedianLoad();
  changed_ = false;
}

// The lower median of relative loads, by weight. A tenant that is alone is its
// own measure.
double ShareMeter::MedianLoad() const {
  std::vector<std::pair<double, double>> loads;
  double weights = 0;
  for (const auto& [tenant, load] : loads_) {
    loads.emplace_back(load.relative(), load.weight);
    weights += load.weight;
  }
  std::sort(loads.begin(), loads.end());
  double below = 0;
  for (const auto& [load, weight] : loads) {
    below += weight;
    if (2 * below >= weights) return load;
  }
  return 0;
}

}  // namespace caravan::gateway
