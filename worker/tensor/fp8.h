// Weights of 8-bit floats, kFp8: 32 elements in 36 bytes, a binary32 scale and
// 32 codes of e4m3 (dtype.h).
//
//   w = code * scale, rounded once in fp32
//
// All blocks of a row have the row's scale: products take it out of their sums.
#ifndef CARAVAN_WORKER_TENSOR_FP8_H_
#define CARAVAN_WORKER_TENSOR_FP8_H_

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "worker/tensor/dtype.h"

namespace caravan::worker {

inline constexpr int64_t kFp8Block = 32;       // elements
inline constexpr int64_t kFp8BlockBytes = 36;  // scale and codes

// Scales below this would make codes of nothing large.
inline constexpr float kLeastFp8Scale = 1e-12f;

// What makes codes of a row whose greatest magnitude is `most`.
constexpr float Fp8Scale(float most) {
  const float scale = most / kMostFp8;
  return scale > kLeastFp8Scale ? scale : kLeastFp8Scale;
}

// `count` elements, a multiple of 32, to fp32.
inline void DequantizeFp8(const std::byte* source, int64_t count,
                          float* target) {
  for (int64_t block = 0; block < count / kFp8Block; ++block) {
    float scale = 0;
    std::memcpy(&scale, source, sizeof(scale));
    for (int64_t i = 0; i < kFp8Block; ++i) {
      const Fp8 code = {std::to_integer<uint8_t>(source[sizeof(scale) + i])};
      *target++ = ToFloat(code) * scale;
    }
    source += kFp8BlockBytes;
  }
}

// A row of `count` finite elements, a multiple of 32: its greatest magnitude
// becomes 448.
inline void QuantizeFp8(const float* source, int64_t count, std::byte* target) {
  float most = 0;
  for (int64_t i = 0; i < count; ++i) {
    most = std::max(most, std::fabs(source[i]));
  }
  const float scale = Fp8Scale(most);
  for (int64_t block = 0; block < count / kFp8Block; ++block) {
    std::memcpy(target, &scale, sizeof(scale));
    for (int64_t i = 0; i < kFp8Block; ++i) {
      target[sizeof(scale) + i] =
          static_cast<std::byte>(ToFp8(*source++ / scale).bits);
    }
    target += kFp8BlockBytes;
  }
}

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_TENSOR_FP8_H_
