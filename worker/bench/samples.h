// What a measurement on a machine with two speeds is worth: samples between
// probes of the machine, of which those count whose probes agree.
#ifndef CARAVAN_WORKER_BENCH_SAMPLES_H_
#define CARAVAN_WORKER_BENCH_SAMPLES_H_

#include <utility>
#include <vector>

namespace caravan::worker::bench {

// The machine's ceilings at one moment.
struct MomentCeilings {
  double read_bytes_per_second = 0;
  double operations_per_second = 0;  // of the arithmetic that is measured
};

// What was done between two probes.
struct Work {
  double seconds = 0;
  double steps = 0;
  double tokens = 0;
  double bytes = 0;  // that had to be read
  double operations = 0;
};

// A sample with the ceilings that it is compared with.
struct Sample {
  Work work;
  MomentCeilings ceilings;

  double step_seconds() const { return work.seconds / work.steps; }
  double tokens_per_second() const { return work.tokens / work.seconds; }
  double bytes_per_second() const { return work.bytes / work.seconds; }
  double operations_per_second() const {
    return work.operations / work.seconds;
  }
  double read_ceiling() const { return ceilings.read_bytes_per_second; }
  double operations_ceiling() const { return ceilings.operations_per_second; }
  // Shares of the ceilings that were reached.
  double read_share() const {
    return bytes_per_second() / ceilings.read_bytes_per_second;
  }
  double operations_share() const {
    return operations_per_second() / ceilings.operations_per_second;
  }
  // Of the lower of both bounds: whichever takes longer.
  double bound_share() const {
    return read_share() > operations_share() ? read_share()
                                             : operations_share();
  }
};

// The quantile of values, in [0, 1], interpolated between neighbours; 0 where
// there is none.
double Quantile(std::vector<double> values, double at);
inline double Median(std::vector<double> values) {
  return Quantile(std::move(values), 0.5);
}

struct SampleRules {
  int wanted = 7;                 // samples that count; at least 1
  int most_attempts = 21;         // dropped ones included
  double most_difference = 0.08;  // of the probes, relative to the slower
};

// The samples of one point. Not thread-safe.
class BracketedSamples {
 public:
  explicit BracketedSamples(const SampleRules& rules) : rules_(rules) {}

  // Takes a sample in, or drops it where the read probes around it differ by
  // more than the rules allow, or one of them measured nothing. It is compared
  // with the mean of the probes' reading and the greater of their arithmetic,
  // which other tenants can only lower.
  bool Add(const MomentCeilings& before, const Work& work,
           const MomentCeilings& after);

  // Whether another sample is needed and allowed.
  bool wants_more() const {
    return kept_count() < rules_.wanted &&
           kept_count() + dropped_count_ < rules_.most_attempts;
  }
  int kept_count() const { return static_cast<int>(kept_.size()); }
  int dropped_count() const { return dropped_count_; }
  // As many as wanted; else the median is of fewer.
  bool complete() const { return kept_count() >= rules_.wanted; }
  const std::vector<Sample>& kept() const { return kept_; }

  // Median of `figure` over the samples that count, such as
  // &Sample::read_share; 0 where none does.
  double MedianOf(double (Sample::*figure)() const) const;
  // Half the distance of the quartiles, relative to the median.
  double SpreadOf(double (Sample::*figure)() const) const;

 private:
  std::vector<double> Values(double (Sample::*figure)() const) const;

  const SampleRules rules_;
  std::vector<Sample> kept_;
  int dropped_count_ = 0;
};

// Throughput of a batch.
struct BatchRate {
  int batch = 0;
  double tokens_per_second = 0;  // median
  double spread = 0;             // BracketedSamples::SpreadOf
};

// A batch that yields less than a smaller one does.
struct Cliff {
  int batch = 0;
  int than_batch = 0;
  double loss = 0;  // relative, in (0, 1]
};

// Where throughput falls when the batch grows, beyond the spread of either and
// at least 2 %: each batch beside the best of the smaller ones. `rates` in any
// order.
std::vector<Cliff> FindCliffs(std::vector<BatchRate> rates);

}  // namespace caravan::worker::bench

#endif  // CARAVAN_WORKER_BENCH_SAMPLES_H_
