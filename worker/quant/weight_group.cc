#include "worker/quant/weight_group.h"

#include <cmath>
#include <cstring>
#include <span>

#include "worker/tensor/dtype.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker::quant {
namespace {

constexpr uint16_t kSign = 0x8000;

template <typename T>
T Load(const std::byte* source) {
  T value;
  std::memcpy(&value, source, sizeof(value));
  return value;
}

int Byte(std::byte value) { return std::to_integer<int>(value); }

// The codes in 16 bytes, low halves first, less `offset`.
void Nibbles(const std::byte* codes, int offset, WeightGroup& group) {
  for (int i = 0; i < 16; ++i) {
    group.q[i] = static_cast<int8_t>((Byte(codes[i]) & 15) - offset);
    group.q[i + 16] = static_cast<int8_t>((Byte(codes[i]) >> 4) - offset);
  }
}

// Adds the fifth bits of 32 codes, times 16.
void AddFifths(uint32_t bits, WeightGroup& group) {
  for (int i = 0; i < 32; ++i) {
    group.q[i] = static_cast<int8_t>(group.q[i] + ((bits >> i & 1) << 4));
  }
}

void LookUp(WeightGroup& group) {
  for (int8_t& q : group.q) q = kIq4Values[static_cast<size_t>(q)];
}

WeightGroup ReadQ8_0(const std::byte* b, int) {
  WeightGroup group;
  group.d = Load<uint16_t>(b);
  std::memcpy(group.q.data(), b + 2, group.q.size());
  return group;
}

WeightGroup ReadQ4_0(const std::byte* b, int) {
  WeightGroup group;
  group.d = Load<uint16_t>(b);
  Nibbles(b + 2, 8, group);
  return group;
}

WeightGroup ReadQ4_1(const std::byte* b, int) {
  WeightGroup group;
  group.d = Load<uint16_t>(b);
  group.m = Load<uint16_t>(b + 2);
  group.t = 1;
  Nibbles(b + 4, 0, group);
  return group;
}

WeightGroup ReadQ5_0(const std::byte* b, int) {
  WeightGroup group;
  group.d = Load<uint16_t>(b);
  Nibbles(b + 6, 16, group);
  AddFifths(Load<uint32_t>(b + 2), group);
  return group;
}

WeightGroup ReadQ5_1(const std::byte* b, int) {
  WeightGroup group;
  group.d = Load<uint16_t>(b);
  group.m = Load<uint16_t>(b + 2);
  group.t = 1;
  Nibbles(b + 8, 0, group);
  AddFifths(Load<uint32_t>(b + 4), group);
  return group;
}

WeightGroup ReadIq4Nl(const std::byte* b, int) {
  WeightGroup group;
  group.d = Load<uint16_t>(b);
  Nibbles(b + 2, 0, group);
  LookUp(group);
  return group;
}

// What q4_k and q5_k have in common; eighths take turns in the low and high
// halves of 32 bytes.
WeightGroup ReadMinOfK(const std::byte* b, const std::byte* codes, int eighth) {
  WeightGroup group;
  group.d = Load<uint16_t>(b);
  group.m = Load<uint16_t>(b + 2) ^ kSign;
  const ScaleAndMin s =
      UnpackScaleAndMin(std::span<const std::byte, 12>(b + 4, 12), eighth);
  group.s = {static_cast<int8_t>(s.scale), static_cast<int8_t>(s.scale)};
  group.t = s.min;
  codes += eighth / 2 * 32;
  const int shift = eighth % 2 * 4;
  for (int i = 0; i < 32; ++i) {
    group.q[i] = static_cast<int8_t>((Byte(codes[i]) >> shift) & 15);
  }
  return group;
}

WeightGroup ReadQ4_K(const std::byte* b, int eighth) {
  return ReadMinOfK(b, b + 16, eighth);
}

WeightGroup ReadQ5_K(const std::byte* b, int eighth) {
  WeightGroup group = ReadMinOfK(b, b + 48, eighth);
  uint32_t fifths = 0;
  for (int i = 0; i < 32; ++i) {
    fifths |= static_cast<uint32_t>((Byte(b[16 + i]) >> eighth) & 1) << i;
  }
  AddFifths(fifths, group);
  return group;
}

WeightGroup ReadQ6_K(const std::byte* b, int eighth) {
  WeightGroup group;
  group.d = Load<uint16_t>(b + 208);
  group.s = {Load<int8_t>(b + 192 + 2 * eighth),
             Load<int8_t>(b + 193 + 2 * eighth)};
  const int quarter = eighth % 4;  // of a run of 128
  const std::byte* const low = b + eighth / 4 * 64 + quarter % 2 * 32;
  const std::byte* const upper = b + 128 + eighth / 4 * 32;
  const int shift = quarter / 2 * 4;
  for (int i = 0; i < 32; ++i) {
    const int high = (Byte(upper[i]) >> (2 * quarter)) & 3;
    group.q[i] =
        static_cast<int8_t>((((Byte(low[i]) >> shift) & 15) | high << 4) - 32);
  }
  return group;
}

// The 6-bit scale of the sixteenth `i`, less 32.
int8_t ScaleOfQ3_K(const std::byte* scales, int i) {
  const int low = (Byte(scales[i % 8]) >> (i < 8 ? 0 : 4)) & 15;
  const int high = (Byte(scales[8 + i % 4]) >> (2 * (i / 4))) & 3;
  return static_cast<int8_t>((low | high << 4) - 32);
}

WeightGroup ReadQ3_K(const std::byte* b, int eighth) {
  WeightGroup group;
  group.d = Load<uint16_t>(b + 108);
  group.s = {ScaleOfQ3_K(b + 96, 2 * eighth),
             ScaleOfQ3_K(b + 96, 2 * eighth + 1)};
  const std::byte* const codes = b + 32 + eighth / 4 * 32;
  for (int i = 0; i < 32; ++i) {
    const int low = (Byte(codes[i]) >> (eighth % 4 * 2)) & 3;
    const int third = (Byte(b[i]) >> eighth) & 1;
    group.q[i] = static_cast<int8_t>(low - (third != 0 ? 0 : 4));
  }
  return group;
}

WeightGroup ReadIq4Xs(const std::byte* b, int eighth) {
  WeightGroup group;
  group.d = Load<uint16_t>(b);
  const int low = (Byte(b[4 + eighth / 2]) >> (eighth % 2 * 4)) & 15;
  const int upper = (Load<uint16_t>(b + 2) >> (2 * eighth)) & 3;
  const auto scale = static_cast<int8_t>((low | upper << 4) - 32);
  group.s = {scale, scale};
  Nibbles(b + 8 + eighth * 16, 0, group);
  LookUp(group);
  return group;
}

// The group's place among those of its block.
using Reader = WeightGroup (*)(const std::byte* block, int group);

struct TypeForm {
  Int8Format format;
  Reader read;
};

std::optional<TypeForm> FormOf(WeightType type) {
  switch (type) {
    case WeightType::kQ8_0:
      return TypeForm{Int8Format::kBytes, ReadQ8_0};
    case WeightType::kQ5_0:
      return TypeForm{Int8Format::kBytes, ReadQ5_0};
    case WeightType::kIq4Nl:
      return TypeForm{Int8Format::kBytes, ReadIq4Nl};
    case WeightType::kQ4_0:
      return TypeForm{Int8Format::kNibbles, ReadQ4_0};
    case WeightType::kQ5_1:
      return TypeForm{Int8Format::kBytesMin, ReadQ5_1};
    case WeightType::kQ4_1:
      return TypeForm{Int8Format::kNibblesMin, ReadQ4_1};
    case WeightType::kQ5_K:
      return TypeForm{Int8Format::kBytesOfK, ReadQ5_K};
    case WeightType::kQ4_K:
      return TypeForm{Int8Format::kNibblesOfK, ReadQ4_K};
    case WeightType::kQ6_K:
      return TypeForm{Int8Format::kBytesHalvesOfK, ReadQ6_K};
    case WeightType::kQ3_K:
      return TypeForm{Int8Format::kBytesHalvesOfK, ReadQ3_K};
    case WeightType::kIq4Xs:
      return TypeForm{Int8Format::kBytesHalvesOfK, ReadIq4Xs};
    default:
      return std::nullopt;
  }
}

float Half(uint16_t bits) { return ToFloat(Fp16{bits}); }

int32_t IntegerSum(const WeightGroup& w, const ActivationGroup& x, int begin,
                   int end) {
  int32_t sum = 0;
  for (int i = begin; i < end; ++i) sum += int32_t{w.q[i]} * x.q[i];
  return sum;
}

// One group's part of a chain.
float AddGroup(Int8Format format, const WeightGroup& w,
               const ActivationGroup& x, float acc) {
  if (format == Int8Format::kBytesHalvesOfK) {
    for (int half = 0; half < 2; ++half) {
      const int32_t sum = IntegerSum(w, x, 16 * half, 16 * half + 16);
      acc = std::fma(static_cast<float>(sum), w.scale(half) * x.scale, acc);
    }
    return acc;
  }
  const int32_t sum = IntegerSum(w, x, 0, kGroupElements);
  acc = std::fma(static_cast<float>(sum), w.scale(0) * x.scale, acc);
  if (format == Int8Format::kBytes || format == Int8Format::kNibbles) {
    return acc;
  }
  return std::fma(w.min(), x.weighted_sum, acc);
}

}  // namespace

std::optional<Int8Format> Int8FormatOf(WeightType type) {
  const std::optional<TypeForm> form = FormOf(type);
  if (!form) return std::nullopt;
  return form->format;
}

float WeightGroup::scale(int64_t half) const {
  return Half(d) * static_cast<float>(s[half]);
}

float WeightGroup::min() const { return Half(m) * static_cast<float>(t); }

WeightGroup ReadGroup(WeightType type, const std::byte* row, int64_t g) {
  const WeightTypeInfo& info = InfoOf(type);
  const int64_t groups = info.elements / kGroupElements;  // of a block
  return FormOf(type)->read(row + g / groups * info.bytes,
                            static_cast<int>(g % groups));
}

float ReferenceProduct(WeightType type, const std::byte* row,
                       const ActivationGroup* x, const int64_t* borders,
                       int segments) {
  const Int8Format format = *Int8FormatOf(type);
  std::array<float, 8> s = {};
  for (int i = 0; i < segments; ++i) {
    const int64_t end = borders[i + 1] / kGroupElements;
    for (int64_t g = borders[i] / kGroupElements; g < end; ++g) {
      s[i] = AddGroup(format, ReadGroup(type, row, g), x[g], s[i]);
    }
  }
  if (segments == 1) return s[0];
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

}  // namespace caravan::worker::quant
