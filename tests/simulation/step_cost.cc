#include "tests/simulation/step_cost.h"

#include <cmath>
#include <cstddef>
#include <utility>

namespace caravan::simulation {
namespace {

constexpr size_t kWeights = 4;
using Vector = std::array<double, kWeights>;
using Matrix = std::array<Vector, kWeights>;

Vector Features(const StepWork& work) {
  return {1, work.prefill_tokens, work.decode_rows, work.kv_tokens};
}

// Gauss and Jordan, with the greatest pivot of the column.
Vector Solve(Matrix a, Vector b) {
  for (size_t column = 0; column < kWeights; ++column) {
    size_t pivot = column;
    for (size_t row = column; row < kWeights; ++row) {
      if (std::abs(a[row][column]) > std::abs(a[pivot][column])) pivot = row;
    }
    std::swap(a[column], a[pivot]);
    std::swap(b[column], b[pivot]);
    for (size_t row = 0; row < kWeights; ++row) {
      if (row == column) continue;
      const double factor = a[row][column] / a[column][column];
      for (size_t i = 0; i < kWeights; ++i) a[row][i] -= factor * a[column][i];
      b[row] -= factor * b[column];
    }
  }
  for (size_t i = 0; i < kWeights; ++i) b[i] /= a[i][i];
  return b;
}

StepSample Decode(double streams, double context, double tokens_per_second) {
  return {{.decode_rows = streams, .kv_tokens = streams * context},
          streams / tokens_per_second};
}

}  // namespace

StepCost StepCost::Fit(std::span<const StepSample> samples) {
  Matrix a = {};
  Vector b = {};
  for (const StepSample& sample : samples) {
    Vector x = Features(sample.work);
    for (double& value : x) value /= sample.seconds;
    for (size_t i = 0; i < kWeights; ++i) {
      for (size_t j = 0; j < kWeights; ++j) a[i][j] += x[i] * x[j];
      b[i] += x[i];
    }
  }
  StepCost cost;
  cost.weights_ = Solve(a, b);
  return cost;
}

StepCost StepCost::Measured() {
  const std::array<StepSample, 7> samples = {
      Decode(1, 128, 21.7),
      Decode(1, 2048, 18.4),
      Decode(2, 128, 43.7),
      Decode(8, 128, 110),
      Decode(16, 128, 179),
      Decode(32, 128, 214),
      StepSample{{.prefill_tokens = 512}, 512 / 302.0}};
  return Fit(samples);
}

StepCost StepCost::Faster(double times) const {
  StepCost faster = *this;
  for (double& weight : faster.weights_) weight /= times;
  return faster;
}

double StepCost::Seconds(const StepWork& work) const {
  const Vector x = Features(work);
  double seconds = 0;
  for (size_t i = 0; i < kWeights; ++i) seconds += weights_[i] * x[i];
  return seconds;
}

absl::Duration StepCost::Of(const StepWork& work) const {
  return absl::Nanoseconds(std::llround(Seconds(work) * 1e9));
}

}  // namespace caravan::simulation
