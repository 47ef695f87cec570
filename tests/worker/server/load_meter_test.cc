#include "worker/server/load_meter.h"

#include <gtest/gtest.h>

namespace caravan::worker {
namespace {

StepReport Step(int32_t decode, int32_t prefill, absl::Duration time) {
  StepReport report;
  report.counters.decode_tokens = decode;
  report.counters.prefill_tokens = prefill;
  report.compute_time = time;
  return report;
}

TEST(LoadMeterTest, TellsTheEnginesCountsWithoutWhatYields) {
  StepReport report;
  LoadMeter meter(/*block_count=*/100, [&report] { return report.load; });
  report.load.running_sequences = 8;
  report.load.waiting_sequences = 6;
  report.load.leased_blocks = 50;
  report.load.yielding = {
      .running_sequences = 5, .waiting_sequences = 4, .leased_blocks = 10};
  report.load.cached_blocks = 10;
  report.load.queued_prefill_tokens = 77;
  const v1::Load load = meter.Update(report);
  EXPECT_EQ(load.running_sequence_count(), 3);
  EXPECT_EQ(load.waiting_sequence_count(), 2);
  EXPECT_EQ(load.leased_block_count(), 40);
  EXPECT_EQ(load.cached_block_count(), 10);
  EXPECT_EQ(load.block_count(), 100);
  EXPECT_EQ(load.queued_prefill_token_count(), 77);
  EXPECT_EQ(meter.Current().running_sequence_count(), 3);
}

TEST(LoadMeterTest, SpeedIsTokensOverComputation) {
  LoadMeter meter(1, [] { return EngineLoad(); });
  for (int i = 0; i < 10; ++i) meter.Update(Step(8, 0, absl::Milliseconds(20)));
  EXPECT_NEAR(meter.Current().decode_tokens_per_second(), 400, 1);
  EXPECT_EQ(meter.Current().prefill_tokens_per_second(), 0);
}

TEST(LoadMeterTest, AMixedStepsDecodingIsNotPrefill) {
  LoadMeter meter(1, [] { return EngineLoad(); });
  for (int i = 0; i < 10; ++i) meter.Update(Step(1, 0, absl::Milliseconds(10)));
  meter.Update(Step(1, 100, absl::Milliseconds(60)));
  EXPECT_NEAR(meter.Current().prefill_tokens_per_second(), 2000, 1);
  EXPECT_NEAR(meter.Current().decode_tokens_per_second(), 100, 1);
}

TEST(LoadMeterTest, ThePastFades) {
  LoadMeter meter(1, [] { return EngineLoad(); });
  for (int i = 0; i < 100; ++i) meter.Update(Step(1, 0, absl::Seconds(1)));
  for (int i = 0; i < 1000; ++i) {
    meter.Update(Step(1, 0, absl::Milliseconds(20)));
  }
  EXPECT_NEAR(meter.Current().decode_tokens_per_second(), 50, 5);
}

}  // namespace
}  // namespace caravan::worker
