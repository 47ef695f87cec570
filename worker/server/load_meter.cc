#include "worker/server/load_meter.h"

#include <algorithm>
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
  load_ = report.load;
  MeasureSpeed(report);
  return CurrentLocked();
}

v1::Load LoadMeter::Current() const {
  absl::MutexLock lock(&mutex_);
  return CurrentLocked();
}

// In a mixed step decoding is taken to last as long as it recently did; what
// is left, at least the share of its tokens, is prefill.
void LoadMeter::MeasureSpeed(const StepReport& report) {
  const StepCounters& step = report.counters;
  if (step.prefill_tokens == 0) {
    decode_.Add(step.decode_tokens, report.compute_time);
    return;
  }
  const double seconds = absl::ToDoubleSeconds(report.compute_time);
  const double speed = decode_.tokens_per_second();
  const double decoding = speed > 0 ? step.decode_tokens / speed : 0;
  const double share = static_cast<double>(step.prefill_tokens) /
                       (step.prefill_tokens + step.decode_tokens);
  prefill_.Add(step.prefill_tokens,
               absl::Seconds(std::max(seconds - decoding, seconds * share)));
}

v1::Load LoadMeter::CurrentLocked() const {
  v1::Load load;
  load.set_running_sequence_count(load_.running_sequences);
  load.set_waiting_sequence_count(load_.waiting_sequences);
  load.set_leased_block_count(load_.leased_blocks);
  load.set_cached_block_count(load_.cached_blocks);
  load.set_block_count(block_count_);
  load.set_queued_prefill_token_count(load_.queued_prefill_tokens);
  load.set_decode_tokens_per_second(
      static_cast<float>(decode_.tokens_per_second()));
  load.set_prefill_tokens_per_second(
      static_cast<float>(prefill_.tokens_per_second()));
  return load;
}

}  // namespace caravan::worker
