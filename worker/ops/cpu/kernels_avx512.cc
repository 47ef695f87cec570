// 512-bit vectors: 24 accumulators, 4 vectors of weights, a broadcast and a
// mask fill the 32 registers.
#include "worker/ops/cpu/kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)

#include <immintrin.h>

#include "worker/ops/canonical_math.h"

namespace caravan::worker::cpu {
namespace avx512 {
namespace {

struct Simd {
  using V = __m512;
  static constexpr const char* kName = "avx512";
  static constexpr int kMaxTokens = 6;  // of a tile
  static constexpr int kRegisters = 1;  // of a V
  static constexpr int kPrefetchBytes = 2048;
  static constexpr int VectorsFor(int) { return 4; }

  static V Zero() { return _mm512_setzero_ps(); }
  static V Set1(float x) { return _mm512_set1_ps(x); }
  static V Load(const float* p) { return _mm512_loadu_ps(p); }
  static V LoadN(const float* p, int n) {
    return _mm512_maskz_loadu_ps(First(n), p);
  }
  static void Store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static void StoreN(float* p, V v, int n) {
    _mm512_mask_storeu_ps(p, First(n), v);
  }
  static V KeepFirst(V x, int n, V other) {
    return _mm512_mask_mov_ps(other, First(n), x);
  }
  static V Add(V a, V b) { return _mm512_add_ps(a, b); }
  static V Sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static V Mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V Div(V a, V b) { return _mm512_div_ps(a, b); }
  static V Max(V a, V b) { return _mm512_max_ps(a, b); }
  static V Fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V Negate(V a) {
    return _mm512_castsi512_ps(
        _mm512_xor_si512(_mm512_castps_si512(a), _mm512_set1_epi32(INT32_MIN)));
  }
  static V Round(V a) {
    return _mm512_roundscale_ps(a,
                                _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static V SelectLess(V a, V b, V yes, V no) {
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), yes);
  }
  static V ScalePow2(V p, V n) {
    const __m512i exponent = _mm512_cvttps_epi32(n);
    const __m512i half = _mm512_srai_epi32(
        _mm512_add_epi32(exponent, _mm512_srli_epi32(exponent, 31)), 1);
    const __m512i rest = _mm512_sub_epi32(exponent, half);
    return Mul(Mul(p, Pow2(half)), Pow2(rest));
  }
  static V EvenBf16(const char* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
  }
  static V OddBf16(const char* p) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(-65536)));
  }
  static V WidenFp16(const char* p) {
    return _mm512_cvtph_ps(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void Prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T0); }
  static void PrefetchOnce(const char* p) { _mm_prefetch(p, _MM_HINT_NTA); }
  // Makes the compiler load again what it would keep in registers that the
  // accumulators need.
  static void Fence() { asm volatile("" ::: "memory"); }

 private:
  static __mmask16 First(int n) {
    return static_cast<__mmask16>((1u << n) - 1);
  }
  static V Pow2(__m512i n) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
  }
};

#include "worker/ops/cpu/kernels.inc"

}  // namespace
}  // namespace avx512

const KernelTable* Avx512Kernels() {
  const bool can =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return can ? &avx512::kTable : nullptr;
}

}  // namespace caravan::worker::cpu

#else  // the compiler's target is another machine

namespace caravan::worker::cpu {
const KernelTable* Avx512Kernels() { return nullptr; }
}  // namespace caravan::worker::cpu

#endif
