// bitsandbytes' 4-bit block formats, kNf4 and kFp4: 64 elements in 36 bytes, a
// binary32 scale followed by 32 bytes of codes, element 2i in the high half of
// byte i and element 2i + 1 in the low one.
//
//   w = table[code] * scale, rounded once in fp32
#ifndef CARAVAN_WORKER_TENSOR_FOUR_BIT_H_
#define CARAVAN_WORKER_TENSOR_FOUR_BIT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace caravan::worker {

inline constexpr int64_t kFourBitBlock = 64;       // elements
inline constexpr int64_t kFourBitBlockBytes = 36;  // scale and codes

// Quantiles of the normal distribution, scaled to [-1, 1].
inline constexpr std::array<float, 16> kNf4Values = {-1.0f,
                                                     -0.6961928009986877f,
                                                     -0.5250730514526367f,
                                                     -0.39491748809814453f,
                                                     -0.28444138169288635f,
                                                     -0.18477343022823334f,
                                                     -0.09105003625154495f,
                                                     0.0f,
                                                     0.07958029955625534f,
                                                     0.16093020141124725f,
                                                     0.24611230194568634f,
                                                     0.33791524171829224f,
                                                     0.44070982933044434f,
                                                     0.5626170039176941f,
                                                     0.7229568362236023f,
                                                     1.0f};

// A 4-bit float (sign, two bits of exponent, one of fraction) over its largest.
inline constexpr std::array<float, 16> kFp4Values = {
    0.0f,       0.0625f / 12,  8.0f / 12,  12.0f / 12,
    4.0f / 12,  6.0f / 12,     2.0f / 12,  3.0f / 12,
    -0.0f,      -0.0625f / 12, -8.0f / 12, -12.0f / 12,
    -4.0f / 12, -6.0f / 12,    -2.0f / 12, -3.0f / 12};

// `count` elements, a multiple of 64, to fp32.
inline void DequantizeFourBit(const std::array<float, 16>& table,
                              const std::byte* source, int64_t count,
                              float* target) {
  for (int64_t block = 0; block < count / kFourBitBlock; ++block) {
    float scale = 0;
    std::memcpy(&scale, source, sizeof(scale));
    const std::byte* const codes = source + sizeof(scale);
    for (int64_t i = 0; i < kFourBitBlock / 2; ++i) {
      const auto code = std::to_integer<uint32_t>(codes[i]);
      *target++ = table[code >> 4] * scale;
      *target++ = table[code & 15] * scale;
    }
    source += kFourBitBlockBytes;
  }
}

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_TENSOR_FOUR_BIT_H_
