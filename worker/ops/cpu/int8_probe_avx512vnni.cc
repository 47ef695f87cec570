// Four products and their sum in each 32-bit lane by one instruction.
#include "worker/ops/cpu/int8_probe.h"

#if defined(__AVX512F__) && defined(__AVX512VNNI__)

#include <immintrin.h>

namespace caravan::worker::cpu {
namespace {

constexpr int kChains = 12;

double Dot(int64_t rounds, int32_t* sum) {
  __m512i acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = _mm512_set1_epi32(*sum + c);
  const __m512i a = _mm512_set1_epi8(3);
  const __m512i b = _mm512_set1_epi8(static_cast<char>(*sum - 2));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) {
      acc[c] = _mm512_dpbusd_epi32(acc[c], a, b);
    }
  }
  for (int c = 1; c < kChains; ++c) {
    acc[0] = _mm512_xor_si512(acc[0], acc[c]);
  }
  *sum = _mm512_reduce_add_epi32(acc[0]);
  return 2.0 * 64 * kChains * static_cast<double>(rounds);
}

constexpr Int8Probe kProbe = {"avx512vnni", &Dot};

}  // namespace

const Int8Probe* Avx512VnniInt8Probe() {
  const bool can =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni");
  return can ? &kProbe : nullptr;
}

}  // namespace caravan::worker::cpu

#else  // the compiler's target is another machine

namespace caravan::worker::cpu {
const Int8Probe* Avx512VnniInt8Probe() { return nullptr; }
}  // namespace caravan::worker::cpu

#endif
