// The load of a worker as gateways and routers see it: the engine's counts of
// the last step and its recent speed.
#ifndef CARAVAN_WORKER_SERVER_LOAD_METER_H_
#define CARAVAN_WORKER_SERVER_LOAD_METER_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "caravan/v1/worker.pb.h"
#include "worker/engine/engine.h"

namespace caravan::worker {

// An average of tokens per second in which a second of computation, not a
// step, is what counts; the past fades with a time constant of 2 s.
//
// Not thread-safe.
class SpeedAverage {
 public:
  void Add(int64_t tokens, absl::Duration time);
  double tokens_per_second() const;

 private:
  double tokens_ = 0;
  double seconds_ = 0;
};

// Thread-safe.
class LoadMeter {
 public:
  // `block_count`: KV blocks in all. `source` gives the engine's counts of the
  // moment, which change without a step too (a cancel).
  LoadMeter(int32_t block_count, std::function<EngineLoad()> source)
      : block_count_(block_count), source_(std::move(source)) {}

  // Takes a step in and returns the load after it.
  v1::Load Update(const StepReport& report);

  // The load of the moment.
  v1::Load Current() const;

 private:
  void MeasureSpeed(const StepReport& report)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  v1::Load With(const EngineLoad& counts) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int32_t block_count_;
  const std::function<EngineLoad()> source_;
  mutable absl::Mutex mutex_;
  SpeedAverage decode_ ABSL_GUARDED_BY(mutex_);
  SpeedAverage prefill_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_LOAD_METER_H_
