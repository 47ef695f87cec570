// The small formulas that the phases are composed of, each as ops.h defines
// it, on plain rows of fp32.
//
// Thread-safe: functions of their arguments.
#ifndef CARAVAN_WORKER_OPS_REFERENCE_FORMULAS_H_
#define CARAVAN_WORKER_OPS_REFERENCE_FORMULAS_H_

#include <array>
#include <cstdint>
#include <span>

#include "worker/ops/ops.h"
#include "worker/tensor/view.h"

namespace caravan::worker::reference {

// y[i] = (x[i] * (1 / sqrt(Lanes16(x * x) / dim + epsilon))) * w[i].
void RmsNorm(std::span<const float> x, std::span<const float> weight,
             float epsilon, std::span<float> y);

// y[r] = the chain over all k of x[k] * w(r, k).
void MatMul(std::span<const float> x, View<const float> w, std::span<float> y);

// Where each of the 8 segments begins, and the end of the last.
using Borders = std::array<int64_t, kSegments + 1>;

// y[r] = Tree8 of the chains of the 8 segments.
void MatMulSegmented(std::span<const float> x, View<const float> w,
                     const Borders& borders, std::span<float> y);

// The same of bf16 weights and x rounded to bf16: BfChain of ops.h.
void MatMulBf16(std::span<const float> x, View<const float> w,
                std::span<float> y);
void MatMulSegmentedBf16(std::span<const float> x, View<const float> w,
                         const Borders& borders, std::span<float> y);

// y[i] += b[i]; nothing where b is empty.
void AddBias(std::span<const float> bias, std::span<float> y);

// Rotates one head of d values in place; cos and sin are of d / 2.
void Rope(std::span<const float> cos, std::span<const float> sin,
          std::span<float> head);

// x[i] = Silu(x[i]) * up[i].
void SiluMultiply(std::span<const float> up, std::span<float> x);

// Attention of one query head over the keys in [0, count), which get `count`
// rows of keys and values.
void Attention(std::span<const float> q, View<const float> keys,
               View<const float> values, std::span<float> out);

}  // namespace caravan::worker::reference

#endif  // CARAVAN_WORKER_OPS_REFERENCE_FORMULAS_H_
