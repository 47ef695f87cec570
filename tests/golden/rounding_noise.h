// What 8-bit activations may do to logits, from the rounding alone: fp32
// arithmetic in which every input of a product with integer kernels is moved
// by a random part of half a step of its group, as rounding would move it.
#ifndef CARAVAN_TESTS_GOLDEN_ROUNDING_NOISE_H_
#define CARAVAN_TESTS_GOLDEN_ROUNDING_NOISE_H_

#include <cstdint>
#include <memory>

#include "worker/ops/backend.h"

namespace caravan::worker {

// A backend of fp32 activations and cache. To groups of 32 elements whose
// greatest magnitude is m it adds independent errors of (-1/2, 1/2) m / 127
// before products of weights that have an Int8Format, seeded by `seed`.
std::unique_ptr<Backend> MakeNoisyBackend(uint32_t seed);

}  // namespace caravan::worker

#endif  // CARAVAN_TESTS_GOLDEN_ROUNDING_NOISE_H_
