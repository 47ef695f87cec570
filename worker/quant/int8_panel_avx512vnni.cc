// 12 integer and 12 fp32 accumulators; a vector is one lane per row.
#include "worker/quant/int8_panel.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#include <immintrin.h>

namespace caravan::worker::quant {
namespace avx512vnni {
namespace {

#include "worker/quant/int8_group.inc"

struct Simd {
  using V = __m512;
  using I = __m512i;
  static constexpr const char* kName = "avx512vnni";
  static constexpr int kMaxTokens = 6;  // of a tile
  static constexpr int VectorsFor(int tokens) { return tokens <= 3 ? 4 : 2; }

  static V Zero() { return _mm512_setzero_ps(); }
  static void Store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static V Add(V a, V b) { return _mm512_add_ps(a, b); }
  static V Mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V Fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V FromI(I a) { return _mm512_cvtepi32_ps(a); }
  static V Broadcast(const char* p) {
    return _mm512_set1_ps(*reinterpret_cast<const float*>(p));
  }
  static V WidenFp16(const char* p) {
    return _mm512_cvtph_ps(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static V WidenU8(const char* p) {
    return FromI(_mm512_cvtepu8_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static V WidenI8(const char* p) {
    return FromI(_mm512_cvtepi8_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static I ZeroI() { return _mm512_setzero_si512(); }
  static I LoadI(const char* p) { return _mm512_loadu_si512(p); }
  static I LowNibbles(I a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
  static I HighNibbles(I a) { return LowNibbles(_mm512_srli_epi16(a, 4)); }
  template <int kShift>
  static I Start(const char* p) {
    return _mm512_slli_epi32(Word(p), kShift);
  }
  template <bool kFew>
  static I Dot(I sum, I u, const char* a) {
    return _mm512_dpbusd_epi32(sum, u, Word(a));
  }
  // Into the second cache. A function that does nothing else, and is not
  // inlined at once, GCC takes for pure and leaves out.
  [[gnu::always_inline]] static void PrefetchFar(const char* p) {
    _mm_prefetch(p, _MM_HINT_T1);
  }
  // The compiler moves no load across it.
  static void Fence() { asm volatile("" ::: "memory"); }

  // QuantizeActivations of one group.
  static void QuantizeGroup(const float* x, char* group) {
    const V a = _mm512_loadu_ps(x);
    const V b = _mm512_loadu_ps(x + 16);
    const I magnitude = _mm512_set1_epi32(0x7fffffff);
    const uint32_t greatest = _mm512_reduce_max_epu32(
        _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(a), magnitude),
                         _mm512_and_si512(_mm512_castps_si512(b), magnitude)));
    _mm512_storeu_si512(group, ZeroI());
    if (greatest < kLeastMagnitudeBits) return;
    if (greatest >= kInfinityBits) return PoisonGroup(group);
    const float amax = __builtin_bit_cast(float, greatest);
    const V inverse = _mm512_set1_ps(127.0f / amax);
    const I qa = _mm512_cvtps_epi32(Mul(a, inverse));
    const I qb = _mm512_cvtps_epi32(Mul(b, inverse));
    __m128i* const q = reinterpret_cast<__m128i*>(group);
    _mm_storeu_si128(q, _mm512_cvtepi32_epi8(qa));
    _mm_storeu_si128(q + 1, _mm512_cvtepi32_epi8(qb));
    StoreSums(amax / 127.0f, _mm512_reduce_add_epi32(qa),
              _mm512_reduce_add_epi32(qb), group);
  }

 private:
  static I Word(const char* p) {
    return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p));
  }
};

#include "worker/quant/int8_panel.inc"

}  // namespace
}  // namespace avx512vnni

const Int8Table* Avx512VnniInt8() {
  const bool can = __builtin_cpu_supports("avx512f") &&
                   __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vnni");
  return can ? &avx512vnni::kTable : nullptr;
}

}  // namespace caravan::worker::quant

#else  // the compiler's target is another machine

namespace caravan::worker::quant {
const Int8Table* Avx512VnniInt8() { return nullptr; }
}  // namespace caravan::worker::quant

#endif
