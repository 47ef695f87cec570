// A vector of 16 lanes is two registers: 8 rows each.
#include "worker/quant/int8_panel.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

#include "worker/tensor/cpu_features.h"

namespace caravan::worker::quant {
namespace avx2 {
namespace {

#include "worker/quant/int8_group.inc"

struct Simd {
  struct V {
    __m256 low, high;
  };
  struct I {
    __m256i low, high;
  };
  static constexpr const char* kName = "avx2";
  static constexpr int kMaxTokens = 3;  // of a tile
  static constexpr int VectorsFor(int) { return 1; }

  static V Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static void Store(float* p, V v) {
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
  }
  static V Add(V a, V b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  static V Mul(V a, V b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  static V Fma(V a, V b, V c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low),
            _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static V FromI(I a) {
    return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)};
  }
  static V Broadcast(const char* p) {
    const __m256 v = _mm256_set1_ps(*reinterpret_cast<const float*>(p));
    return {v, v};
  }
  static V WidenFp16(const char* p) {
    const __m128i* const halves = reinterpret_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(halves)),
            _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
  }
  static V WidenU8(const char* p) {
    return FromI(
        {_mm256_cvtepu8_epi32(Load8(p)), _mm256_cvtepu8_epi32(Load8(p + 8))});
  }
  static V WidenI8(const char* p) {
    return FromI(
        {_mm256_cvtepi8_epi32(Load8(p)), _mm256_cvtepi8_epi32(Load8(p + 8))});
  }
  static I ZeroI() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static I LoadI(const char* p) {
    const __m256i* const halves = reinterpret_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)};
  }
  static I LowNibbles(I a) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(a.low, mask), _mm256_and_si256(a.high, mask)};
  }
  static I HighNibbles(I a) {
    return LowNibbles(
        {_mm256_srli_epi16(a.low, 4), _mm256_srli_epi16(a.high, 4)});
  }
  template <int kShift>
  static I Start(const char* p) {
    const __m256i v = _mm256_slli_epi32(Word(p), kShift);
    return {v, v};
  }
  template <bool kFew>
  static I Dot(I sum, I u, const char* a) {
    const __m256i x = Word(a);
    return {Dot4<kFew>(sum.low, u.low, x), Dot4<kFew>(sum.high, u.high, x)};
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
    __m256 v[4];
    __m256i greatest = _mm256_setzero_si256();
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm256_loadu_ps(x + 8 * i);
      greatest = _mm256_max_epu32(
          greatest, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
    }
    const uint32_t bits = GreatestLane(greatest);
    __builtin_memset(group, 0, 64);
    if (bits < kLeastMagnitudeBits) return;
    if (bits >= kInfinityBits) return PoisonGroup(group);
    const float amax = __builtin_bit_cast(float, bits);
    const __m256 inverse = _mm256_set1_ps(127.0f / amax);
    __m256i q[4];
    for (int i = 0; i < 4; ++i) {
      q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
    }
    StoreBytes(q, group);
    StoreSums(amax / 127.0f, SumLanes(_mm256_add_epi32(q[0], q[1])),
              SumLanes(_mm256_add_epi32(q[2], q[3])), group);
  }

 private:
  static __m128i Load8(const char* p) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  }
  static __m256i Word(const char* p) {
    return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(p));
  }
  // sum + the dot products of 4 unsigned with 4 signed bytes, exactly: pairs
  // of products of few bits fit into 16; others are made of even and odd bytes.
  template <bool kFew>
  static __m256i Dot4(__m256i sum, __m256i u, __m256i a) {
    if constexpr (kFew) {
      const __m256i pairs = _mm256_maddubs_epi16(u, a);
      return _mm256_add_epi32(sum,
                              _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    } else {
      const __m256i even =
          _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(255)),
                            _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8));
      const __m256i odd =
          _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(a, 8));
      return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
    }
  }
  static uint32_t GreatestLane(__m256i v) {
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v),
                              _mm256_extracti128_si256(v, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
  }
  static int32_t SumLanes(__m256i v) {
    __m128i m = _mm_add_epi32(_mm256_castsi256_si128(v),
                              _mm256_extracti128_si256(v, 1));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtsi128_si32(m);
  }
  // Four times 8 numbers of 32 bits as 32 bytes, in order.
  static void StoreBytes(const __m256i (&q)[4], char* bytes) {
    const __m256i words = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]),
                                             _mm256_packs_epi32(q[2], q[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes),
                        _mm256_permutevar8x32_epi32(words, order));
  }
};

#include "worker/quant/int8_panel.inc"

}  // namespace
}  // namespace avx2

const Int8Table* Avx2Int8() {
  const bool can = __builtin_cpu_supports("avx2") &&
                   __builtin_cpu_supports("fma") && HasF16c();
  return can ? &avx2::kTable : nullptr;
}

}  // namespace caravan::worker::quant

#else  // the compiler's target is another machine

namespace caravan::worker::quant {
const Int8Table* Avx2Int8() { return nullptr; }
}  // namespace caravan::worker::quant

#endif
