// Plain C++ for any machine: slow, and the same bits.
#include <cstring>
#include <span>

#include "worker/quant/int8_activations.h"
#include "worker/quant/int8_panel.h"
#include "worker/tensor/dtype.h"

namespace caravan::worker::quant {
namespace portable {
namespace {

struct Simd {
  struct V {
    float lane[kLanes];
  };
  struct I {
    int32_t lane[kLanes];  // or 4 bytes each
  };
  static constexpr const char* kName = "portable";
  static constexpr int kMaxTokens = 2;  // of a tile
  static constexpr int VectorsFor(int) { return 1; }

  template <class Lanes, class F>
  static Lanes Each(const F& f) {
    Lanes lanes;
    for (int i = 0; i < kLanes; ++i) lanes.lane[i] = f(i);
    return lanes;
  }
  template <class T>
  static T Get(const char* p) {
    T value;
    std::memcpy(&value, p, sizeof(value));
    return value;
  }

  static V Zero() {
    return Each<V>([](int) { return 0.0f; });
  }
  static void Store(float* p, const V& v) {
    std::memcpy(p, v.lane, sizeof(v.lane));
  }
  static V Add(const V& a, const V& b) {
    return Each<V>([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static V Mul(const V& a, const V& b) {
    return Each<V>([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static V Fma(const V& a, const V& b, const V& c) {
    return Each<V>(
        [&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static V FromI(const I& a) {
    return Each<V>([&](int i) { return static_cast<float>(a.lane[i]); });
  }
  static V Broadcast(const char* p) {
    return Each<V>([p](int) { return Get<float>(p); });
  }
  static V WidenFp16(const char* p) {
    return Each<V>(
        [p](int i) { return ToFloat(Fp16{Get<uint16_t>(p + 2 * i)}); });
  }
  static V WidenU8(const char* p) {
    return Each<V>(
        [p](int i) { return static_cast<float>(Get<uint8_t>(p + i)); });
  }
  static V WidenI8(const char* p) {
    return Each<V>(
        [p](int i) { return static_cast<float>(Get<int8_t>(p + i)); });
  }
  static I ZeroI() {
    return Each<I>([](int) { return 0; });
  }
  static I LoadI(const char* p) { return Get<I>(p); }
  static I LowNibbles(const I& a) {
    return Each<I>([&](int i) { return a.lane[i] & 0x0f0f0f0f; });
  }
  static I HighNibbles(const I& a) {
    return Each<I>([&](int i) { return (a.lane[i] >> 4) & 0x0f0f0f0f; });
  }
  template <int kShift>
  static I Start(const char* p) {
    return Each<I>([p](int) { return Get<int32_t>(p) * (1 << kShift); });
  }
  template <bool kFew>
  static I Dot(const I& sum, const I& u, const char* a) {
    return Each<I>([&](int i) {
      int32_t total = sum.lane[i];
      for (int b = 0; b < 4; ++b) {
        const uint32_t code = static_cast<uint32_t>(u.lane[i]) >> (8 * b) & 255;
        total += static_cast<int32_t>(code) * Get<int8_t>(a + b);
      }
      return total;
    });
  }
  static void PrefetchFar(const char*) {}
  static void Fence() {}
  static void QuantizeGroup(const float* x, char* group) {
    QuantizeActivations(std::span(x, kGroupElements),
                        reinterpret_cast<ActivationGroup*>(group));
  }
};

#include "worker/quant/int8_panel.inc"

}  // namespace
}  // namespace portable

const Int8Table* PortableInt8() { return &portable::kTable; }

}  // namespace caravan::worker::quant
