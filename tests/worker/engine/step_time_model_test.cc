#include "worker/engine/step_time_model.h"

#include <gtest/gtest.h>

#include "absl/time/time.h"

namespace caravan::worker {
namespace {

// 40 ms, 3 a prefill token, 2 a decode token.
absl::Duration TimeOf(const PlanWork& work) {
  return absl::Milliseconds(40 + 3 * work.prefill_tokens +
                            2 * work.decode_tokens);
}

StepTimeModel Learned() {
  StepTimeModel model;
  for (int i = 0; i < 200; ++i) {
    const PlanWork work = {.prefill_tokens = i % 3 == 0 ? 0 : i % 64,
                           .decode_tokens = i % 17};
    model.Observe(work, TimeOf(work));
  }
  return model;
}

TEST(StepTimeModelTest, LearnsWhatRowsCost) {
  const StepTimeModel model = Learned();
  EXPECT_NEAR(model.StepSeconds({}), 0.040, 0.004);
  EXPECT_NEAR(model.RowSeconds({.prefill_tokens = 64}), 0.192, 0.010);
  EXPECT_NEAR(model.RowSeconds({.decode_tokens = 10}), 0.020, 0.004);
}

TEST(StepTimeModelTest, FollowsAMachineThatBecomesSlower) {
  StepTimeModel model = Learned();
  for (int i = 0; i < 600; ++i) {
    const PlanWork work = {.prefill_tokens = i % 3 == 0 ? 0 : i % 64,
                           .decode_tokens = i % 17};
    model.Observe(work, 5 * TimeOf(work));
  }
  EXPECT_NEAR(model.RowSeconds({.prefill_tokens = 64}), 0.96, 0.05);
}

TEST(StepTimeModelTest, WhatStepsCannotTellApartIsNotNegative) {
  StepTimeModel model;
  for (int i = 0; i < 50; ++i) {
    model.Observe({.decode_tokens = 4}, absl::Milliseconds(50));
  }
  EXPECT_NEAR(model.StepSeconds({.decode_tokens = 4}), 0.050, 0.002);
  EXPECT_GE(model.RowSeconds({.decode_tokens = 1}), 0);
  EXPECT_GE(model.RowSeconds({.prefill_tokens = 1}), 0);
}

TEST(StepTimeModelTest, BeforeTheFirstStepTokensCostAPartOfAStep) {
  const StepTimeModel model;
  EXPECT_GT(model.StepSeconds({}), model.RowSeconds({.decode_tokens = 1}));
  EXPECT_GT(model.RowSeconds({.prefill_tokens = 1}), 0);
}

}  // namespace
}  // namespace caravan::worker
