#include "worker/ops/cuda/device_ceilings.h"

#include <gtest/gtest.h>

#include "common/status/errors.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/ops/cuda/emulated_device.h"

namespace caravan::worker::cuda {
namespace {

CeilingOptions Small() {
  return {.bytes = 1 << 16, .gemm_size = 32, .mma_rounds = 2, .repeats = 1};
}

TEST(DeviceCeilingsTest, EveryCeilingIsMeasured) {
  testing::ManualClock clock;
  EmulatedOptions options;
  options.library.emplace();
  options.library->clock = &clock;
  EmulatedDevice device(options);
  ASSERT_OK_AND_ASSIGN(const DeviceCeilings found,
                       MeasureCeilings(&device, clock, Small()));
  EXPECT_EQ(found.card, "host, driver none, emulated 1");
  EXPECT_GT(found.read_bytes_per_second, 0);
  EXPECT_GT(found.copy_bytes_per_second, 0);
  EXPECT_GT(found.mma_flops, 0);
  // The fastest of the emulated library's algorithms takes 10 us.
  EXPECT_NEAR(found.gemm_flops, 2.0 * 32 * 32 * 32 / 1e-5, 1e4);
}

TEST(DeviceCeilingsTest, WithoutALibraryItsProductIsNotMeasured) {
  const testing::ManualClock clock;
  EmulatedDevice device{EmulatedOptions()};
  ASSERT_OK_AND_ASSIGN(const DeviceCeilings found,
                       MeasureCeilings(&device, clock, Small()));
  EXPECT_EQ(found.gemm_flops, 0);
  EXPECT_EQ(found.card, "emulated");
}

TEST(DeviceCeilingsTest, AProductThatDoesNotFitIsRefused) {
  testing::ManualClock clock;
  EmulatedOptions options;
  options.library.emplace();
  EmulatedDevice device(options);
  CeilingOptions large = Small();
  large.gemm_size = 1024;
  EXPECT_EQ(ReasonOf(MeasureCeilings(&device, clock, large).status()),
            Reason::kInvalidField);
}

}  // namespace
}  // namespace caravan::worker::cuda
