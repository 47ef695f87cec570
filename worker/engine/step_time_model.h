// What the rows of a plan cost, learned from the steps that ran: a step's time
// is taken as a sum of a fixed part, a part per prefill token and a part per
// decoding sequence, fitted to recent steps.
//
// Not thread-safe.
#ifndef CARAVAN_WORKER_ENGINE_STEP_TIME_MODEL_H_
#define CARAVAN_WORKER_ENGINE_STEP_TIME_MODEL_H_

#include <array>
#include <cstdint>

#include "absl/time/time.h"

namespace caravan::worker {

// Rows of a plan, in tokens.
struct PlanWork {
  int32_t prefill_tokens = 0;
  int32_t decode_tokens = 0;

  bool empty() const { return prefill_tokens + decode_tokens == 0; }
};

class StepTimeModel {
 public:
  // A step with this work took so long.
  void Observe(const PlanWork& work, absl::Duration time);

  // In seconds; before the first step in a unit that is as good. Never
  // negative.
  double StepSeconds(const PlanWork& work) const;
  // Of the rows alone, in a step that runs anyway.
  double RowSeconds(const PlanWork& work) const;

 private:
  static constexpr int kWeights = 3;
  using Vector = std::array<double, kWeights>;

  void Fit();

  // Sums over the steps, older ones less and less.
  std::array<Vector, kWeights> squares_ = {};
  Vector products_ = {};
  bool observed_ = false;
  // Of a step, a prefill token and a decode token. A token costs a sixteenth
  // of a step until steps say better.
  Vector weights_ = {16, 1, 1};
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_ENGINE_STEP_TIME_MODEL_H_
