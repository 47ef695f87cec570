// A vector of 16 lanes is a pair of 256-bit registers.
#include "worker/ops/cpu/kernels.h"

#if defined(__AVX2__) && defined(__F16C__)

#include <immintrin.h>

#include "worker/ops/canonical_math.h"
#include "worker/tensor/cpu_features.h"

namespace caravan::worker::cpu {
namespace avx2 {
namespace {

struct Simd {
  struct V {
    __m256 a;  // lanes 0 to 7
    __m256 b;  // lanes 8 to 15
  };
  static constexpr const char* kName = "avx2";
  static constexpr const char* kFp32Name = "avx2";
  static constexpr bool kHasBf16Dot = false;
  static constexpr int kMaxTokens = 6;  // of a tile
  static constexpr int kRegisters = 2;  // of a V
  static constexpr int kPrefetchBytes = 2048;
  static constexpr int VectorsFor(int tokens) {
    return tokens == 1 ? 4 : (tokens == 2 ? 2 : 1);
  }

  static V Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static V Set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static V Load(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
  }
  static V LoadN(const float* p, int n) {
    return {
        _mm256_maskload_ps(p, First(n)),
        n > 8 ? _mm256_maskload_ps(p + 8, First(n - 8)) : _mm256_setzero_ps()};
  }
  static void Store(float* p, V v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
  }
  static void StoreN(float* p, V v, int n) {
    _mm256_maskstore_ps(p, First(n), v.a);
    if (n > 8) _mm256_maskstore_ps(p + 8, First(n - 8), v.b);
  }
  static V KeepFirst(V x, int n, V other) {
    return {_mm256_blendv_ps(other.a, x.a, _mm256_castsi256_ps(First(n))),
            _mm256_blendv_ps(other.b, x.b, _mm256_castsi256_ps(First(n - 8)))};
  }
  static V Add(V x, V y) {
    return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
  }
  static V Sub(V x, V y) {
    return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
  }
  static V Mul(V x, V y) {
    return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
  }
  static V Div(V x, V y) {
    return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
  }
  static V Max(V x, V y) {
    return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
  }
  static V Fma(V x, V y, V z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  static V Negate(V x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_xor_ps(x.a, sign), _mm256_xor_ps(x.b, sign)};
  }
  static V Round(V x) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, kNearest), _mm256_round_ps(x.b, kNearest)};
  }
  static V SelectLess(V x, V y, V yes, V no) {
    return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
            _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
  }
  static V ScalePow2(V p, V n) {
    return {ScaleHalf(p.a, n.a), ScaleHalf(p.b, n.b)};
  }
  static V EvenBf16(const char* p) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(Raw(p), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(Raw(p + 32), 16))};
  }
  static V OddBf16(const char* p) {
    const __m256i mask = _mm256_set1_epi32(-65536);
    return {_mm256_castsi256_ps(_mm256_and_si256(Raw(p), mask)),
            _mm256_castsi256_ps(_mm256_and_si256(Raw(p + 32), mask))};
  }
  static V WidenFp16(const char* p) {
    return {_mm256_cvtph_ps(Raw128(p)), _mm256_cvtph_ps(Raw128(p + 16))};
  }
  static V WidenBf16(const char* p) {
    return {Shifted(_mm256_cvtepu16_epi32(Raw128(p))),
            Shifted(_mm256_cvtepu16_epi32(Raw128(p + 16)))};
  }
  // 16 values, and codes of them in the low four bits of each lane.
  struct Table {
    __m256 low;   // values 0 to 7
    __m256 high;  // values 8 to 15
  };
  struct Codes {
    __m256i a;  // lanes 0 to 7
    __m256i b;  // lanes 8 to 15
  };
  static Table LoadTable(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
  }
  static Codes LoadCodes(const char* p) { return {Raw(p), Raw(p + 32)}; }
  static Codes NextCodes(Codes c) {
    return {_mm256_srli_epi32(c.a, 4), _mm256_srli_epi32(c.b, 4)};
  }
  static V LookUp(const Table& t, Codes c) {
    return {LookUpHalf(t, c.a), LookUpHalf(t, c.b)};
  }
  // Rounds to nearest, ties to even; NaN stays NaN.
  static void StoreBf16(uint16_t* p, V v) {
    const __m256i packed = _mm256_permute4x64_epi64(
        _mm256_packus_epi32(Rounded(v.a), Rounded(v.b)), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed);
  }

  // Subnormal inputs and results of FlushingFma, FlushingAdd and DotPairs are
  // zero while it lives.
  class Flushing {
   public:
    Flushing() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
    ~Flushing() { _mm_setcsr(saved_); }
    Flushing(const Flushing&) = delete;
    Flushing& operator=(const Flushing&) = delete;

   private:
    const unsigned saved_;
  };
  static V FlushingFma(V a, V b, V c) { return Fma(a, b, c); }
  static V FlushingAdd(V a, V b) { return Add(a, b); }

  static void Prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T0); }
  // Into the second cache; always_inline: see int8_panel_avx512vnni.cc.
  [[gnu::always_inline]] static void PrefetchFar(const char* p) {
    _mm_prefetch(p, _MM_HINT_T1);
  }
  static void PrefetchOnce(const char* p) { _mm_prefetch(p, _MM_HINT_NTA); }
  static void Fence() { asm volatile("" ::: "memory"); }

 private:
  // All ones in the lanes below n (none where n <= 0, all where n >= 8).
  static __m256i First(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  // The fourth bit of a code chooses between halves of the table.
  static __m256 LookUpHalf(const Table& t, __m256i codes) {
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(t.low, codes),
                            _mm256_permutevar8x32_ps(t.high, codes),
                            _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
  }
  static __m256 Shifted(__m256i halves) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(halves, 16));
  }
  static __m256i Rounded(__m256 v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(
        _mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    const __m256i is_nan =
        _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), quiet, is_nan);
  }
  static __m256i Raw(const char* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static __m128i Raw128(const char* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static __m256 Pow2(__m256i n) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
  static __m256 ScaleHalf(__m256 p, __m256 n) {
    const __m256i exponent = _mm256_cvttps_epi32(n);
    const __m256i half = _mm256_srai_epi32(
        _mm256_add_epi32(exponent, _mm256_srli_epi32(exponent, 31)), 1);
    const __m256i rest = _mm256_sub_epi32(exponent, half);
    return _mm256_mul_ps(_mm256_mul_ps(p, Pow2(half)), Pow2(rest));
  }
};

#include "worker/ops/cpu/kernels.inc"

}  // namespace
}  // namespace avx2

const KernelTable* Avx2Kernels() {
  const bool can = __builtin_cpu_supports("avx2") &&
                   __builtin_cpu_supports("fma") && HasF16c();
  return can ? &avx2::kTable : nullptr;
}

}  // namespace caravan::worker::cpu

#else  // the compiler's target is another machine

namespace caravan::worker::cpu {
const KernelTable* Avx2Kernels() { return nullptr; }
}  // namespace caravan::worker::cpu

#endif
