#include "worker/engine/step_time_model.h"

#include <algorithm>
#include <utility>

namespace caravan::worker {
namespace {

// What a step's weight is multiplied with when the next one is told.
constexpr double kKept = 0.99;
// Keeps a part that steps cannot tell from another near zero; of the mean of
// its squares.
constexpr double kRidge = 1e-3;

}  // namespace

void StepTimeModel::Observe(const PlanWork& work, absl::Duration time) {
  const Vector x = {1, static_cast<double>(work.prefill_tokens),
                    static_cast<double>(work.decode_tokens)};
  const double seconds = absl::ToDoubleSeconds(time);
  for (int i = 0; i < kWeights; ++i) {
    for (int j = 0; j < kWeights; ++j) {
      squares_[i][j] = kKept * squares_[i][j] + x[i] * x[j];
    }
    products_[i] = kKept * products_[i] + x[i] * seconds;
  }
  Fit();
}

// Gauss and Seidel with bounds: the best weights of which none is negative.
void StepTimeModel::Fit() {
  constexpr int kRounds = 16;
  Vector weights = observed_ ? weights_ : Vector{};
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kWeights; ++i) {
      double rest = products_[i];
      for (int j = 0; j < kWeights; ++j) {
        if (j != i) rest -= squares_[i][j] * weights[j];
      }
      const double square = squares_[i][i] * (1 + kRidge);
      weights[i] = square > 0 ? std::max(0.0, rest / square) : 0;
    }
  }
  weights_ = weights;
  observed_ = true;
}

double StepTimeModel::StepSeconds(const PlanWork& work) const {
  return weights_[0] + RowSeconds(work);
}

double StepTimeModel::RowSeconds(const PlanWork& work) const {
  return weights_[1] * work.prefill_tokens + weights_[2] * work.decode_tokens;
}

}  // namespace caravan::worker
