#include "worker/server/load_meter.h"

#include <cmath>

namespace caravan::worker {
namespace {

constexpr double kTimeConstantSeconds = 2;

}  // namespace

void SpeedAverage::Add(int64_t tokens, absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  if (tokens <= 0 || seconds <= 0) return;
  const double keep = std::exp(-seconds / kTimeConstantSeconds);
  tokens_ = tokens_ * keep + static_cast<double>(tokens);
  seconds_ = seconds_ * keep + seconds;
}

double SpeedAverage::tokens_per_second() const {
  return seconds_ > 0 ? tokens_ / seconds_ : 0;
}

v1::Load LoadMeter::Update(const StepReport& report) {
  absl::MutexLock lock(&mutex_);
  MeasureSpeed(report);
  return With(report.load);
}

v1::Load LoadMeter::Current() const {
  const EngineLoad counts = source_();
  absl::MutexLock lock(&mutex_);
  return With(counts);
}

// In a mixed step decoding is taken to last as long as it recently did, and
// what is left is prefill; before decoding was measured, and where hardly
// anything is left, time goes by tokens.
void LoadMeter::MeasureSpeed(const StepReport& report) {
  const StepCounters& step = report.counters;
  if (step.prefill_tokens == 0) {
    decode_.Add(step.decode_tokens, report.compute_time);
    return;
  }
  const double seconds = absl::ToDoubleSeconds(report.compute_time);
  const double speed = decode_.tokens_per_second();
  const double left = speed > 0 ? seconds - step.decode_tokens / speed : 0;
  const double by_tokens = seconds * step.prefill_tokens /
                           (step.prefill_tokens + step.decode_tokens);
  prefill_.Add(step.prefill_tokens,
               absl::Seconds(left > 0.1 * seconds ? left : by_tokens));
}

v1::Load LoadMeter::With(const EngineLoad& counts) const {
  v1::Load load;
  const EngineLoad::Yielding& yielding = counts.yielding;
  load.set_running_sequence_count(counts.running_sequences -
                                  yielding.running_sequences);
  load.set_waiting_sequence_count(counts.waiting_sequences -
                                  yielding.waiting_sequences);
  load.set_leased_block_count(counts.leased_blocks - yielding.leased_blocks);
  load.set_cached_block_count(counts.cached_blocks);
  load.set_block_count(block_count_);
  load.set_queued_prefill_token_count(counts.queued_prefill_tokens);
  load.set_decode_tokens_per_second(
      static_cast<float>(decode_.tokens_per_second()));
  load.set_prefill_tokens_per_second(
      static_cast<float>(prefill_.tokens_per_second()));
  return load;
}

}  // namespace caravan::worker
