#include "worker/quant/int8_activations.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace caravan::worker {
namespace {

constexpr float kLeastMagnitude = 0x1p-100f;

// NaN above infinity above every number, in any order of the elements.
float GreatestMagnitude(const float* x) {
  uint32_t greatest = 0;
  for (int64_t i = 0; i < kGroupElements; ++i) {
    greatest = std::max(greatest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  }
  return std::bit_cast<float>(greatest);
}

void SetSums(ActivationGroup& group) {
  for (int64_t half = 0; half < 2; ++half) {
    int32_t sum = 0;
    for (int64_t i = 0; i < 16; ++i) sum += group.q[16 * half + i];
    group.minus_half_sums[half] = -sum;
    group.weighted_half_sums[half] = group.scale * static_cast<float>(sum);
  }
  group.minus_sum = group.minus_half_sums[0] + group.minus_half_sums[1];
  group.weighted_sum = group.scale * static_cast<float>(-group.minus_sum);
}

void QuantizeGroup(const float* x, ActivationGroup& group) {
  group = {};
  const float greatest = GreatestMagnitude(x);
  if (greatest < kLeastMagnitude) return;
  if (!std::isfinite(greatest)) {
    group.scale = std::numeric_limits<float>::quiet_NaN();
    SetSums(group);
    return;
  }
  group.scale = greatest / 127.0f;
  const float inverse = 127.0f / greatest;
  for (int64_t i = 0; i < kGroupElements; ++i) {
    group.q[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
  }
  SetSums(group);
}

}  // namespace

void QuantizeActivations(std::span<const float> x, ActivationGroup* groups) {
  for (size_t i = 0; i + kGroupElements <= x.size(); i += kGroupElements) {
    QuantizeGroup(x.data() + i, groups[i / kGroupElements]);
  }
}

}  // namespace caravan::worker
