// Rows of activations as signed bytes, one scale per group of 32: the left
// operand of every product with weights in group formats.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_WORKER_QUANT_INT8_ACTIVATIONS_H_
#define CARAVAN_WORKER_QUANT_INT8_ACTIVATIONS_H_

#include <array>
#include <cstdint>
#include <span>

namespace caravan::worker {

inline constexpr int64_t kGroupElements = 32;

// One group of one row: one cache line, so that a kernel's broadcasts of the
// elements and of what goes with them come from the same line.
struct alignas(64) ActivationGroup {
  std::array<int8_t, kGroupElements> q;  // in [-127, 127]
  float scale;                           // amax / 127
  int32_t minus_sum;                     // -(sum of q)
  float weighted_sum;                    // scale * (sum of q), rounded once
  std::array<int32_t, 2> minus_half_sums;
  std::array<float, 2> weighted_half_sums;
  int32_t unused;
};
static_assert(sizeof(ActivationGroup) == 64);

// x.size() elements, a multiple of 32, to x.size() / 32 groups. With amax the
// greatest magnitude of a group, all in fp32 and each operation rounded to
// nearest, ties to even:
//   scale = amax / 127, q[i] = round(x[i] * (127 / amax)).
// A group whose amax is below 2^-100 is zero. A group with a NaN or infinity
// has scale NaN, which reaches every product it takes part in.
void QuantizeActivations(std::span<const float> x, ActivationGroup* groups);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_QUANT_INT8_ACTIVATIONS_H_
