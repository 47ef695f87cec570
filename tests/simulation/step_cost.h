// How long a step takes on a simulated worker: a sum over what the plan holds,
// with weights fitted to what the engine's bench measured.
#ifndef CARAVAN_TESTS_SIMULATION_STEP_COST_H_
#define CARAVAN_TESTS_SIMULATION_STEP_COST_H_

#include <array>
#include <span>

#include "absl/time/time.h"

namespace caravan::simulation {

// What a step computes.
struct StepWork {
  double prefill_tokens = 0;
  double decode_rows = 0;
  double kv_tokens = 0;  // that the decode rows read
};

// A step that was measured.
struct StepSample {
  StepWork work;
  double seconds = 0;
};

class StepCost {
 public:
  // Least squares of the relative error. At least four samples that tell the
  // four weights apart.
  static StepCost Fit(std::span<const StepSample> samples);

  // The 1.1B shape in q8_0 on two cores at commit 6ff2e19, by the engine's
  // bench. Kernels are faster since; the fleet's bounds are of these figures.
  static StepCost Measured();

  // The same shape, `times` as fast: a larger machine.
  StepCost Faster(double times) const;

  absl::Duration Of(const StepWork& work) const;
  double Seconds(const StepWork& work) const;
  double prefill_tokens_per_second() const { return 1 / weights_[1]; }

 private:
  // Of a step, a prefill token, a decode row and a token of its context.
  std::array<double, 4> weights_ = {};
};

}  // namespace caravan::simulation

#endif  // CARAVAN_TESTS_SIMULATION_STEP_COST_H_
