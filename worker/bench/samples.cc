#include "worker/bench/samples.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace caravan::worker::bench {
namespace {

// Below this a fall is the noise of timing.
constexpr double kLeastLoss = 0.02;

bool Agree(double a, double b, double most_difference) {
  const double slower = std::min(a, b);
  return slower > 0 && std::fabs(a - b) <= most_difference * slower;
}

}  // namespace

double Quantile(std::vector<double> values, double at) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double place = at * static_cast<double>(values.size() - 1);
  const size_t low = static_cast<size_t>(place);
  const size_t high = std::min(low + 1, values.size() - 1);
  return std::lerp(values[low], values[high], place - static_cast<double>(low));
}

bool BracketedSamples::Add(const MomentCeilings& before, const Work& work,
                           const MomentCeilings& after) {
  if (work.seconds <= 0 ||
      !Agree(before.read_bytes_per_second, after.read_bytes_per_second,
             rules_.most_difference)) {
    ++dropped_count_;
    return false;
  }
  kept_.push_back(
      {work,
       {(before.read_bytes_per_second + after.read_bytes_per_second) / 2,
        std::max(before.operations_per_second, after.operations_per_second)}});
  return true;
}

std::vector<double> BracketedSamples::Values(double (Sample::*figure)()
                                                 const) const {
  std::vector<double> values;
  for (const Sample& sample : kept_) values.push_back((sample.*figure)());
  return values;
}

double BracketedSamples::MedianOf(double (Sample::*figure)() const) const {
  return Median(Values(figure));
}

double BracketedSamples::SpreadOf(double (Sample::*figure)() const) const {
  const std::vector<double> values = Values(figure);
  const double middle = Median(values);
  if (middle == 0) return 0;
  return (Quantile(values, 0.75) - Quantile(values, 0.25)) / 2 / middle;
}

std::vector<Cliff> FindCliffs(std::vector<BatchRate> rates) {
  std::sort(
      rates.begin(), rates.end(),
      [](const BatchRate& a, const BatchRate& b) { return a.batch < b.batch; });
  std::vector<Cliff> cliffs;
  const BatchRate* best = nullptr;
  for (const BatchRate& rate : rates) {
    if (best != nullptr && best->tokens_per_second > 0) {
      const double loss = 1 - rate.tokens_per_second / best->tokens_per_second;
      const double noise = std::max({kLeastLoss, rate.spread, best->spread});
      if (loss > noise) cliffs.push_back({rate.batch, best->batch, loss});
    }
    if (best == nullptr || rate.tokens_per_second > best->tokens_per_second) {
      best = &rate;
    }
  }
  return cliffs;
}

}  // namespace caravan::worker::bench
