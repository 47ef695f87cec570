// exp, log, sin and cos as fixed sequences of IEEE 754 operations: no libm
// result enters a logit, a table or a logprob (DESIGN.md 1.1). SIMD versions
// do the same operations lane by lane and give the same bits.
#ifndef CARAVAN_WORKER_OPS_CANONICAL_MATH_H_
#define CARAVAN_WORKER_OPS_CANONICAL_MATH_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "worker/ops/host_device.h"

namespace caravan::worker {

// Coefficients of exp(r) for |r| <= ln(2)/2, minimax in the style of Cephes
// expf: exp(r) = 1 + r + r^2 * P(r). Error below 1.1 units in the last place.
struct ExpConstants {
  static constexpr float kLog2e = 1.44269504088896341f;
  static constexpr float kLn2High = 0.693359375f;  // exact in 9 bits
  static constexpr float kLn2Low = -2.12194440e-4f;
  static constexpr float kMin = -87.0f;  // below: 0, so no subnormals appear
  static constexpr float kMax = 88.7f;   // above: infinity
  static constexpr float kP0 = 1.9875691500e-4f;
  static constexpr float kP1 = 1.3981999507e-3f;
  static constexpr float kP2 = 8.3334519073e-3f;
  static constexpr float kP3 = 4.1665795894e-2f;
  static constexpr float kP4 = 1.6666665459e-1f;
  static constexpr float kP5 = 5.0000001201e-1f;
};

// e^x. NaN gives NaN. The rounding of n is to nearest, ties to even.
CARAVAN_HOST_DEVICE inline float Exp(float x) {
  using C = ExpConstants;
  if (x < C::kMin) return 0.0f;
  if (x > C::kMax) return std::numeric_limits<float>::infinity();
  const float n = std::nearbyint(x * C::kLog2e);
  float r = std::fma(n, -C::kLn2High, x);
  r = std::fma(n, -C::kLn2Low, r);
  float p = C::kP0;
  p = std::fma(p, r, C::kP1);
  p = std::fma(p, r, C::kP2);
  p = std::fma(p, r, C::kP3);
  p = std::fma(p, r, C::kP4);
  p = std::fma(p, r, C::kP5);
  p = std::fma(p, r * r, r) + 1.0f;
  if (n != n) return n;
  // 2^n in two factors: n can be 128, which has no float.
  const int32_t half = static_cast<int32_t>(n) / 2;
  const int32_t rest = static_cast<int32_t>(n) - half;
  return p * std::bit_cast<float>((half + 127) << 23) *
         std::bit_cast<float>((rest + 127) << 23);
}

// x / (1 + e^-x).
CARAVAN_HOST_DEVICE inline float Silu(float x) { return x / (1.0f + Exp(-x)); }

// A subnormal as zero of its sign.
inline float Flush(float x) {
  return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x;
}

// fma(a, b, c) of bf16 numbers a and b: subnormal inputs and results are zero,
// a result counting as subnormal when it is below 2^-126 after rounding to 24
// bits. What the processors' dot products of bf16 do twice per pair.
inline float FlushingFma(float a, float b, float c) {
  a = Flush(a);
  b = Flush(b);
  c = Flush(c);
  const float rounded = std::fma(a, b, c);
  if (!(std::fabs(rounded) <= 0x1p-126f)) return rounded;
  // The product has 16 bits and the sum is near 2^-126: exact in double.
  const double exact = static_cast<double>(a) * b + c;
  constexpr double kLimit = 0x1p-126 - 0x1p-151;
  return std::fabs(exact) < kLimit ? std::copysign(0.0f, rounded) : rounded;
}

// e^x in double: Taylor to x^13 on |r| <= ln(2)/2 (remainder below 2^-56).
// Below -700: 0; above 700: infinity.
CARAVAN_HOST_DEVICE inline double Exp64(double x) {
  if (x < -700.0) return 0.0;
  if (x > 700.0) return std::numeric_limits<double>::infinity();
  if (x != x) return x;
  const double n = std::nearbyint(x * 1.4426950408889634074);
  double r = std::fma(n, -6.93147180369123816490e-01, x);
  r = std::fma(n, -1.90821492927058770002e-10, r);
  double p = 1.0 / 6227020800.0;  // 1/13!
  constexpr double kInverseFactorials[] = {1.0 / 479001600.0,
                                           1.0 / 39916800.0,
                                           1.0 / 3628800.0,
                                           1.0 / 362880.0,
                                           1.0 / 40320.0,
                                           1.0 / 5040.0,
                                           1.0 / 720.0,
                                           1.0 / 120.0,
                                           1.0 / 24.0,
                                           1.0 / 6.0,
                                           0.5,
                                           1.0,
                                           1.0};
  for (const double c : kInverseFactorials) p = std::fma(p, r, c);
  return p * std::bit_cast<double>((static_cast<int64_t>(n) + 1023) << 52);
}

// Natural logarithm of a positive, normal x, by atanh series on
// [sqrt(1/2), sqrt(2)): s = (m - 1) / (m + 1), log m = 2 s (1 + s^2/3 + ...).
CARAVAN_HOST_DEVICE inline double Log64(double x) {
  const int64_t bits = std::bit_cast<int64_t>(x);
  int64_t exponent = ((bits >> 52) & 2047) - 1023;
  double m =
      std::bit_cast<double>((bits & 0xfffffffffffff) | (int64_t{1023} << 52));
  if (m > 1.41421356237309504880) {
    m *= 0.5;
    exponent += 1;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double z = s * s;
  double p = 1.0 / 23.0;
  for (int k = 21; k >= 1; k -= 2) p = std::fma(p, z, 1.0 / k);
  const double n = static_cast<double>(exponent);
  return std::fma(n, 6.93147180369123816490e-01,
                  std::fma(n, 1.90821492927058770002e-10, 2.0 * s * p));
}

// Natural logarithm of a positive, normal float.
CARAVAN_HOST_DEVICE inline float Log(float x) {
  return static_cast<float>(Log64(static_cast<double>(x)));
}

// base^exponent for base > 0.
inline double Pow64(double base, double exponent) {
  return Exp64(exponent * Log64(base));
}

// Sine and cosine of |x| < 2^24, by reduction to |r| <= pi/4 with pi/2 in two
// doubles and Taylor series to r^17 and r^16 (remainder below 2^-53).
struct SinCos {
  double sin;
  double cos;
};
inline SinCos SinCos64(double x) {
  const double n = std::nearbyint(x * 0.63661977236758134308);
  double r = std::fma(n, -1.57079632679489655800, x);
  r = std::fma(n, -6.12323399573676603587e-17, r);
  const double z = r * r;
  double s = 1.0 / 355687428096000.0;  // 1/17!
  constexpr double kSine[] = {-1.0 / 1307674368000.0,
                              1.0 / 6227020800.0,
                              -1.0 / 39916800.0,
                              1.0 / 362880.0,
                              -1.0 / 5040.0,
                              1.0 / 120.0,
                              -1.0 / 6.0,
                              1.0};
  for (const double c : kSine) s = std::fma(s, z, c);
  s *= r;
  double c = 1.0 / 20922789888000.0;  // 1/16!
  constexpr double kCosine[] = {-1.0 / 87178291200.0,
                                1.0 / 479001600.0,
                                -1.0 / 3628800.0,
                                1.0 / 40320.0,
                                -1.0 / 720.0,
                                1.0 / 24.0,
                                -0.5,
                                1.0};
  for (const double k : kCosine) c = std::fma(c, z, k);
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_CANONICAL_MATH_H_
