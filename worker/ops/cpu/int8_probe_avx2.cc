// Pairs of products to 16 bits, pairs of those to 32 bits, and an addition.
#include "worker/ops/cpu/int8_probe.h"

#ifdef __AVX2__

#include <immintrin.h>

namespace caravan::worker::cpu {
namespace {

constexpr int kChains = 12;

double Dot(int64_t rounds, int32_t* sum) {
  __m256i acc[kChains];
  for (int c = 0; c < kChains; ++c) acc[c] = _mm256_set1_epi32(*sum + c);
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(static_cast<char>(*sum - 2));
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) {
      asm volatile("" : "+x"(a));  // or the product leaves the loop
      const __m256i pairs = _mm256_maddubs_epi16(a, b);
      acc[c] = _mm256_add_epi32(acc[c], _mm256_madd_epi16(pairs, ones));
    }
  }
  for (int c = 1; c < kChains; ++c) {
    acc[0] = _mm256_xor_si256(acc[0], acc[c]);
  }
  *sum = _mm256_extract_epi32(acc[0], 0) ^ _mm256_extract_epi32(acc[0], 7);
  return 2.0 * 32 * kChains * static_cast<double>(rounds);
}

constexpr Int8Probe kProbe = {"avx2", &Dot};

}  // namespace

const Int8Probe* Avx2Int8Probe() {
  return __builtin_cpu_supports("avx2") ? &kProbe : nullptr;
}

}  // namespace caravan::worker::cpu

#else  // the compiler's target is another machine

namespace caravan::worker::cpu {
const Int8Probe* Avx2Int8Probe() { return nullptr; }
}  // namespace caravan::worker::cpu

#endif
