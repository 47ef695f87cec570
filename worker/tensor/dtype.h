// Element types of tensors in files and in memory.
#ifndef CARAVAN_WORKER_TENSOR_DTYPE_H_
#define CARAVAN_WORKER_TENSOR_DTYPE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace caravan::worker {

// fp8 only of caches: as weights it has scales (fp8.h).
enum class DType : uint8_t { kFp32, kBf16, kFp16, kFp8 };

inline constexpr size_t SizeOf(DType dtype) {
  return dtype == DType::kFp32 ? 4 : dtype == DType::kFp8 ? 1 : 2;
}

// "fp32", "bf16", "fp16", "fp8".
inline constexpr std::string_view Name(DType dtype) {
  switch (dtype) {
    case DType::kFp32:
      return "fp32";
    case DType::kBf16:
      return "bf16";
    case DType::kFp16:
      return "fp16";
    case DType::kFp8:
      return "fp8";
  }
  return "unknown";
}

// Raw 16-bit storage; arithmetic happens in fp32.
struct Bf16 {
  uint16_t bits;
};
struct Fp16 {
  uint16_t bits;
};
// e4m3: sign, 4 bits of exponent (bias 7), 3 of fraction; no infinities, NaN is
// 0x7f and 0xff, the largest value 448.
struct Fp8 {
  uint8_t bits;
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

// Exact, subnormals included.
constexpr float ToFloat(Fp8 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x80) << 24;
  const uint32_t magnitude = value.bits & 0x7f;
  if (magnitude == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000);
  if (magnitude < 8) {  // zero or subnormal: fraction * 2^-9
    const float small = static_cast<float>(magnitude) * 0x1p-9f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(small) | sign);
  }
  return std::bit_cast<float>(sign | ((magnitude + (120 << 3)) << 20));
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

inline constexpr float kMostFp8 = 448.0f;

// Rounds to nearest, ties to even; what is beyond 448, infinities too, becomes
// 448; NaN stays NaN.
constexpr Fp8 ToFp8(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint8_t sign = static_cast<uint8_t>((bits >> 24) & 0x80);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {static_cast<uint8_t>(sign | 0x7f)};
  if (magnitude >= 0x43e00000) return {static_cast<uint8_t>(sign | 0x7e)};
  if (magnitude < 0x3c800000) {  // below 2^-6: subnormal, units of 2^-9
    const float shifted = std::bit_cast<float>(magnitude) + 16384.0f;
    return {static_cast<uint8_t>(
        sign | (std::bit_cast<uint32_t>(shifted) - 0x46800000))};
  }
  const uint32_t rounded = magnitude + 0x7ffff + ((magnitude >> 20) & 1);
  return {static_cast<uint8_t>(sign | ((rounded - 0x3c000000) >> 20))};
}

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_TENSOR_DTYPE_H_
