// Element types of tensors in files and in memory.
#ifndef CARAVAN_WORKER_TENSOR_DTYPE_H_
#define CARAVAN_WORKER_TENSOR_DTYPE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace caravan::worker {

enum class DType : uint8_t { kFp32, kBf16, kFp16 };

inline constexpr size_t SizeOf(DType dtype) {
  return dtype == DType::kFp32 ? 4 : 2;
}

// "fp32", "bf16", "fp16".
inline constexpr std::string_view Name(DType dtype) {
  return dtype == DType::kFp32 ? "fp32"
                               : (dtype == DType::kBf16 ? "bf16" : "fp16");
}

// Raw 16-bit storage; arithmetic happens in fp32.
struct Bf16 {
  uint16_t bits;
};
struct Fp16 {
  uint16_t bits;
};

constexpr float ToFloat(Bf16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// IEEE 754 binary16, subnormals and infinities included; exact.
constexpr float ToFloat(Fp16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t exponent = (value.bits >> 10) & 31;
  const uint32_t fraction = value.bits & 1023;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t biased = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | (biased << 23) | (fraction << 13));
}

constexpr float ToFloat(float value) { return value; }

// Rounds to nearest, ties to even; NaN stays NaN.
constexpr Bf16 ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) {
    return {static_cast<uint16_t>((bits >> 16) | 0x40)};
  }
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

// Rounds to nearest, ties to even; overflow gives infinity, NaN stays NaN.
constexpr Fp16 ToFp16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (magnitude < 0x38800000) {  // below 2^-14: subnormal, units of 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(
        sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000))};
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  if (rounded >= 0x47800000) return {static_cast<uint16_t>(sign | 0x7c00)};
  return {static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13))};
}

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_TENSOR_DTYPE_H_
