// A device that fails: the first error is told to whoever waits for a step, and
// to everyone after; nothing is computed any more. What follows from there
// (streams end with WORKER_LOST, health is NOT_SERVING, the process ends) the
// tests of engine and server cover for any runner that is lost.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/ops/cuda/emulated_device.h"
#include "worker/model/model_loader.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/shard/shard_runner.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::HasReason;
using ::caravan::testing::RepositoryPath;
using ::testing::HasSubstr;

class DeviceFailureTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto owned =
        std::make_unique<cuda::EmulatedDevice>(cuda::EmulatedOptions());
    device_ = owned.get();
    backend_ = *cuda::MakeBackendOn(std::move(owned), {});
    auto loaded = LoadModel(RepositoryPath("deploy/demo-model"), ModelOptions(),
                            backend_.get());
    ASSERT_OK(loaded.status());
    model_ = *std::move(loaded);
    auto runner = ShardRunner::Create(model_.get(), backend_.get(),
                                      {.block_count = 4,
                                       .max_step_tokens = 8,
                                       .max_logits_rows = 2,
                                       .max_in_flight = 2});
    ASSERT_OK(runner.status());
    runner_ = *std::move(runner);
    SequenceSpec spec;
    spec.id = 1;
    spec.prompt =
        std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{5});
    runner_->AddSequence(std::move(spec));
  }

  // One token at `position`, sampled after.
  absl::Status Launch(int32_t position) {
    BatchPlan plan;
    plan.rows.push_back({.sequence = 1,
                         .first_position = position,
                         .tokens = {7},
                         .blocks = {0},
                         .sample = true,
                         .output_position = position});
    return runner_->Launch(std::move(plan));
  }

  cuda::EmulatedDevice* device_ = nullptr;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<ShardRunner> runner_;
};

TEST_F(DeviceFailureTest, AnErrorOfALaunchIsToldOfEveryStepFromThenOn) {
  ASSERT_OK(Launch(0));
  ASSERT_OK(runner_->Collect().status());
  device_->FailAfterLaunches(5);  // in the middle of the step's graph
  ASSERT_OK(Launch(1));
  EXPECT_THAT(runner_->Collect(),
              HasReason(Reason::kInternal, HasSubstr("injected")));
  const int launches = device_->counts().attempts;
  if (Launch(2).ok()) {
    EXPECT_THAT(runner_->Collect(), HasReason(Reason::kInternal));
  }
  EXPECT_EQ(device_->counts().attempts, launches) << "nothing runs any more";
}

TEST_F(DeviceFailureTest, PlansInFlightFailToo) {
  device_->FailAfterLaunches(0);
  ASSERT_OK(Launch(0));
  ASSERT_OK(Launch(1));
  EXPECT_THAT(runner_->Collect(), HasReason(Reason::kInternal));
  EXPECT_THAT(runner_->Collect(), HasReason(Reason::kInternal));
}

}  // namespace
}  // namespace caravan::worker
