// Plain C++ for any machine: slow, and the same bits.
#include <cstring>

#include "worker/ops/canonical_math.h"
#include "worker/ops/cpu/kernels.h"
#include "worker/tensor/dtype.h"

namespace caravan::worker::cpu {
namespace portable {
namespace {

struct Simd {
  struct V {
    float lane[kLanes];
  };
  static constexpr const char* kName = "portable";
  static constexpr const char* kFp32Name = "portable";
  static constexpr bool kHasBf16Dot = false;
  static constexpr int kMaxTokens = 2;  // of a tile
  static constexpr int kRegisters = 1;  // of a V
  static constexpr int kPrefetchBytes = 2048;
  static constexpr int VectorsFor(int) { return 1; }

  template <typename F>
  static V Each(const F& f) {
    V v;
    for (int i = 0; i < kLanes; ++i) v.lane[i] = f(i);
    return v;
  }

  static V Zero() { return Set1(0); }
  static V Set1(float x) {
    return Each([x](int) { return x; });
  }
  static V Load(const float* p) {
    return Each([p](int i) { return p[i]; });
  }
  static V LoadN(const float* p, int n) {
    return Each([p, n](int i) { return i < n ? p[i] : 0.0f; });
  }
  static void Store(float* p, const V& v) { StoreN(p, v, kLanes); }
  static void StoreN(float* p, const V& v, int n) {
    for (int i = 0; i < n; ++i) p[i] = v.lane[i];
  }
  static V KeepFirst(const V& x, int n, const V& other) {
    return Each([&](int i) { return i < n ? x.lane[i] : other.lane[i]; });
  }
  static V Add(V a, V b) {
    return Each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static V Sub(const V& a, const V& b) {
    return Each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static V Mul(const V& a, const V& b) {
    return Each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static V Div(const V& a, const V& b) {
    return Each([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  static V Max(const V& a, const V& b) {
    return Each(
        [&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static V Fma(const V& a, const V& b, const V& c) {
    return Each(
        [&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static V Negate(const V& a) {
    return Each([&](int i) { return -a.lane[i]; });
  }
  static V Round(const V& a) {
    return Each([&](int i) { return __builtin_nearbyintf(a.lane[i]); });
  }
  static V SelectLess(const V& a, const V& b, const V& yes, const V& no) {
    return Each([&](int i) {
      return a.lane[i] < b.lane[i] ? yes.lane[i] : no.lane[i];
    });
  }
  static V ScalePow2(const V& p, const V& n) {
    return Each([&](int i) { return ScaleOne(p.lane[i], n.lane[i]); });
  }
  static V EvenBf16(const char* p) {
    return Each([p](int i) { return ToFloat(Bf16{Half(p, 2 * i)}); });
  }
  static V OddBf16(const char* p) {
    return Each([p](int i) { return ToFloat(Bf16{Half(p, 2 * i + 1)}); });
  }
  static V WidenFp16(const char* p) {
    return Each([p](int i) { return ToFloat(Fp16{Half(p, i)}); });
  }
  static V WidenBf16(const char* p) {
    return Each([p](int i) { return ToFloat(Bf16{Half(p, i)}); });
  }
  // 16 values, and codes of them in the low four bits of each lane.
  using Table = V;
  struct Codes {
    uint32_t lane[kLanes];
  };
  static Table LoadTable(const float* p) { return Load(p); }
  static Codes LoadCodes(const char* p) {
    Codes codes;
    std::memcpy(codes.lane, p, sizeof(codes.lane));
    return codes;
  }
  static Codes NextCodes(Codes c) {
    for (uint32_t& code : c.lane) code >>= 4;
    return c;
  }
  static V LookUp(const Table& t, const Codes& c) {
    return Each([&](int i) { return t.lane[c.lane[i] & 15]; });
  }
  static void StoreBf16(uint16_t* p, const V& v) {
    for (int i = 0; i < kLanes; ++i) p[i] = ToBf16(v.lane[i]).bits;
  }
  struct Flushing {
    Flushing() {}  // not trivial, so that a scope of it counts as used
  };
  static V FlushingFma(const V& a, const V& b, const V& c) {
    return Each([&](int i) {
      return caravan::worker::FlushingFma(a.lane[i], b.lane[i], c.lane[i]);
    });
  }
  static V FlushingAdd(V a, V b) {
    return Each([&](int i) { return Flush(a.lane[i] + b.lane[i]); });
  }
  static void Prefetch(const char*) {}
  static void PrefetchFar(const char*) {}
  static void PrefetchOnce(const char* p) {}
  static void Fence() {}

 private:
  static uint16_t Half(const char* p, int index) {
    uint16_t bits;
    std::memcpy(&bits, p + 2 * index, sizeof(bits));
    return bits;
  }
  static float Pow2(int32_t n) {
    return __builtin_bit_cast(float, static_cast<uint32_t>(n + 127) << 23);
  }
  static float ScaleOne(float p, float n) {
    // Out of range only where the caller's selection drops the result.
    if (!(n > -200.0f && n < 200.0f)) return n != n ? n : 0.0f;
    const int32_t exponent = static_cast<int32_t>(n);
    const int32_t half = exponent / 2;
    return p * Pow2(half) * Pow2(exponent - half);
  }
};

#include "worker/ops/cpu/kernels.inc"

}  // namespace
}  // namespace portable

const KernelTable* PortableKernels() { return &portable::kTable; }

}  // namespace caravan::worker::cpu
