// The arithmetic of the sampling rule (sample.h), one number at a time: plain
// functions that every backend's sampler is made of, devices' too.
#ifndef CARAVAN_WORKER_OPS_SAMPLE_MATH_H_
#define CARAVAN_WORKER_OPS_SAMPLE_MATH_H_

#include <cstdint>
#include <limits>

#include "worker/ops/canonical_math.h"
#include "worker/ops/host_device.h"

namespace caravan::worker {

// The weight of the greatest logit: all others' are at most that.
inline constexpr int kSampleWeightBits = 40;

// Step 1.
CARAVAN_HOST_DEVICE inline float PenalizeRepetition(float logit,
                                                    float penalty) {
  return logit > 0 ? logit / penalty : logit * penalty;
}

// Step 2, for an id that stands `count` > 0 times in the output.
CARAVAN_HOST_DEVICE inline float PenalizeOutput(float logit, int32_t count,
                                                float frequency,
                                                float presence) {
  return (logit - frequency * static_cast<float>(count)) - presence;
}

// The nearest finite float.
CARAVAN_HOST_DEVICE inline float ClampLogit(float logit) {
  constexpr float kGreatest = std::numeric_limits<float>::max();
  if (logit < -kGreatest) return -kGreatest;
  return logit > kGreatest ? kGreatest : logit;
}

// Step 5 for one id; `max` is the greatest logit of the row.
CARAVAN_HOST_DEVICE inline uint64_t SampleWeight(float logit, float max,
                                                 float temperature) {
  const double x = (static_cast<double>(logit) - static_cast<double>(max)) /
                   static_cast<double>(temperature);
  return static_cast<uint64_t>(
      Exp64(x) * static_cast<double>(uint64_t{1} << kSampleWeightBits));
}

// floor(share * 2^32) for a share in [0, 1].
CARAVAN_HOST_DEVICE inline uint64_t Fixed32(float share) {
  return static_cast<uint64_t>(static_cast<double>(share) * 0x1p32);
}

// The least sum c with c * 2^32 >= share * total, share being at most 2^32 and
// total below 2^63; 1 where that is 0, since an id stays in any case.
CARAVAN_HOST_DEVICE inline uint64_t SumForShare(uint64_t share,
                                                uint64_t total) {
  const uint64_t low = share * (total & 0xffffffffu);
  const uint64_t sum = share * (total >> 32) + ((low + 0xffffffffu) >> 32);
  return sum == 0 ? 1 : sum;
}

// Step 8: the least weight that stays.
CARAVAN_HOST_DEVICE inline uint64_t LeastWeight(float min_p) {
  return Fixed32(min_p) << (kSampleWeightBits - 32);
}

// Step 9: (draw * total) >> 32, exactly, for total below 2^63.
CARAVAN_HOST_DEVICE inline uint64_t DrawTarget(uint32_t draw, uint64_t total) {
  return draw * (total >> 32) + ((draw * (total & 0xffffffffu)) >> 32);
}

// A row's log-softmax is (l - max) - log_sum (ops.h, Logprob).
struct LogNormalizer {
  float max = 0;
  float log_sum = 0;
};

CARAVAN_HOST_DEVICE inline float Logprob(const LogNormalizer& normalizer,
                                         float logit) {
  return (logit - normalizer.max) - normalizer.log_sum;
}

// Exponentials relative to a maximum, summed.
struct ExpSum {
  float max = 0;
  float sum = 0;
};

// Of a row's segments so far and the next one.
CARAVAN_HOST_DEVICE inline ExpSum Merge(const ExpSum& a, const ExpSum& b) {
  const float max = a.max < b.max ? b.max : a.max;
  return {max, std::fma(a.sum, Exp(a.max - max), b.sum * Exp(b.max - max))};
}

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_SAMPLE_MATH_H_
