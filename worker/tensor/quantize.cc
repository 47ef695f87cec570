#include "worker/tensor/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "worker/tensor/dtype.h"
#include "worker/tensor/four_bit.h"
#include "worker/tensor/fp8.h"

namespace caravan::worker {
namespace {

template <typename T>
T Load(const std::byte* source) {
  T value;
  std::memcpy(&value, source, sizeof(value));
  return value;
}

float LoadHalf(const std::byte* source) { return ToFloat(Load<Fp16>(source)); }

int Byte(std::byte value) { return std::to_integer<int>(value); }
int Low(std::byte value) { return Byte(value) & 15; }
int High(std::byte value) { return Byte(value) >> 4; }

template <typename T>
void WidenPlain(const std::byte* source, int64_t count, float* target) {
  for (int64_t i = 0; i < count; ++i) {
    target[i] = ToFloat(Load<T>(source + i * sizeof(T)));
  }
}

// ---- Reading: one block each.

void ReadQ8_0(const std::byte* b, float* y) {
  const float d = LoadHalf(b);
  for (int i = 0; i < 32; ++i) y[i] = d * Load<int8_t>(b + 2 + i);
}

void ReadQ4_0(const std::byte* b, float* y) {
  const float d = LoadHalf(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * (Low(b[2 + i]) - 8);
    y[i + 16] = d * (High(b[2 + i]) - 8);
  }
}

void ReadQ4_1(const std::byte* b, float* y) {
  const float d = LoadHalf(b);
  const float m = LoadHalf(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * Low(b[4 + i]) + m;
    y[i + 16] = d * High(b[4 + i]) + m;
  }
}

// Bit `i` of a word, in the fifth place.
int Fifth(uint32_t bits, int i) {
  return static_cast<int>((bits >> i) & 1) << 4;
}

void ReadQ5_0(const std::byte* b, float* y) {
  const float d = LoadHalf(b);
  const auto fifths = Load<uint32_t>(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * ((Low(b[6 + i]) | Fifth(fifths, i)) - 16);
    y[i + 16] = d * ((High(b[6 + i]) | Fifth(fifths, i + 16)) - 16);
  }
}

void ReadQ5_1(const std::byte* b, float* y) {
  const float d = LoadHalf(b);
  const float m = LoadHalf(b + 2);
  const auto fifths = Load<uint32_t>(b + 4);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * (Low(b[8 + i]) | Fifth(fifths, i)) + m;
    y[i + 16] = d * (High(b[8 + i]) | Fifth(fifths, i + 16)) + m;
  }
}

// Element `i` of 256 in the 64 bytes of 2-bit codes of q2_k and q3_k: each run
// of 128 elements has 32 bytes, each 32 of them one shift.
int TwoBits(const std::byte* codes, int i) {
  const int byte = i / 128 * 32 + i % 32;
  return (Byte(codes[byte]) >> (i % 128 / 32 * 2)) & 3;
}

void ReadQ2_K(const std::byte* b, float* y) {
  const float d = LoadHalf(b + 80);
  const float m = LoadHalf(b + 82);
  for (int i = 0; i < 256; ++i) {
    const std::byte scale = b[i / 16];
    y[i] = d * Low(scale) * TwoBits(b + 16, i) - m * High(scale);
  }
}

// The 6-bit scale of the sixteenth `i` of a q3_k block, less 32.
int ScaleOfQ3_K(const std::byte* scales, int i) {
  const int low = i < 8 ? Low(scales[i]) : High(scales[i - 8]);
  const int high = (Byte(scales[8 + i % 4]) >> (2 * (i / 4))) & 3;
  return (low | high << 4) - 32;
}

void ReadQ3_K(const std::byte* b, float* y) {
  const float d = LoadHalf(b + 108);
  for (int i = 0; i < 256; ++i) {
    const float scale = d * ScaleOfQ3_K(b + 96, i / 16);
    const int third = (Byte(b[i % 32]) >> (i / 32)) & 1;
    y[i] = scale * (TwoBits(b + 32, i) - (third != 0 ? 0 : 4));
  }
}

// q4_k and q5_k: eighths take turns in the low and high halves of 32 bytes.
int FourBitsOfK(const std::byte* codes, int i) {
  const std::byte code = codes[i / 64 * 32 + i % 32];
  return i % 64 < 32 ? Low(code) : High(code);
}

void ReadQ4_K(const std::byte* b, float* y) {
  const float d = LoadHalf(b);
  const float m = LoadHalf(b + 2);
  const std::span<const std::byte, 12> scales(b + 4, 12);
  for (int i = 0; i < 256; ++i) {
    const ScaleAndMin s = UnpackScaleAndMin(scales, i / 32);
    y[i] = d * s.scale * FourBitsOfK(b + 16, i) - m * s.min;
  }
}

void ReadQ5_K(const std::byte* b, float* y) {
  const float d = LoadHalf(b);
  const float m = LoadHalf(b + 2);
  const std::span<const std::byte, 12> scales(b + 4, 12);
  for (int i = 0; i < 256; ++i) {
    const ScaleAndMin s = UnpackScaleAndMin(scales, i / 32);
    const int fifth = (Byte(b[16 + i % 32]) >> (i / 32)) & 1;
    y[i] = d * s.scale * (FourBitsOfK(b + 48, i) | fifth << 4) - m * s.min;
  }
}

void ReadQ6_K(const std::byte* b, float* y) {
  const float d = LoadHalf(b + 208);
  for (int i = 0; i < 256; ++i) {
    const int quarter = i % 128 / 32;  // of a run of 128
    const std::byte code = b[i / 128 * 64 + quarter % 2 * 32 + i % 32];
    const int upper = (Byte(b[128 + i / 128 * 32 + i % 32]) >> (2 * quarter));
    const int low = quarter < 2 ? Low(code) : High(code);
    const float scale = d * Load<int8_t>(b + 192 + i / 16);
    y[i] = scale * ((low | (upper & 3) << 4) - 32);
  }
}

void ReadIq4Nl(const std::byte* b, float* y) {
  const float d = LoadHalf(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * kIq4Values[Low(b[2 + i])];
    y[i + 16] = d * kIq4Values[High(b[2 + i])];
  }
}

void ReadIq4Xs(const std::byte* b, float* y) {
  const float d = LoadHalf(b);
  const auto upper = Load<uint16_t>(b + 2);
  for (int i = 0; i < 256; ++i) {
    const int eighth = i / 32;
    const std::byte pair = b[4 + eighth / 2];
    const int low = eighth % 2 == 0 ? Low(pair) : High(pair);
    const int scale = (low | ((upper >> (2 * eighth)) & 3) << 4) - 32;
    const std::byte code = b[8 + eighth * 16 + i % 16];
    y[i] = d * scale * kIq4Values[i % 32 < 16 ? Low(code) : High(code)];
  }
}

// Digit `n` of a byte that holds base-3 digits as a fraction of 256.
int Digit(std::byte value, int n) {
  constexpr std::array<int, 5> kPowers = {1, 3, 9, 27, 81};
  return ((Byte(value) * kPowers[n]) & 255) * 3 >> 8;
}

void ReadTq1_0(const std::byte* b, float* y) {
  const float d = LoadHalf(b + 52);
  const auto run = [&](const std::byte* bytes, int width, int digits) {
    for (int n = 0; n < digits; ++n) {
      for (int i = 0; i < width; ++i) *y++ = d * (Digit(bytes[i], n) - 1);
    }
  };
  run(b, 32, 5);
  run(b + 32, 16, 5);
  run(b + 48, 4, 4);
}

void ReadTq2_0(const std::byte* b, float* y) {
  const float d = LoadHalf(b + 64);
  for (int i = 0; i < 256; ++i) y[i] = d * (TwoBits(b, i) - 1);
}

using ReadBlock = void (*)(const std::byte* block, float* target);

// By WeightType; null for what is not read block by block here.
constexpr std::array<ReadBlock, kWeightTypes.size()> kReaders = {
    nullptr,   nullptr,   nullptr,   ReadQ8_0, ReadQ4_0, ReadQ4_1, ReadQ5_0,
    ReadQ5_1,  ReadQ2_K,  ReadQ3_K,  ReadQ4_K, ReadQ5_K, ReadQ6_K, ReadIq4Nl,
    ReadIq4Xs, ReadTq1_0, ReadTq2_0, nullptr,  nullptr,  nullptr};

// ---- Writing: one block each.

void StoreHalf(Fp16 value, std::byte* target) {
  std::memcpy(target, &value, sizeof(value));
}

// The element of greatest magnitude, with its sign; the first of several.
float Extreme(const float* x, int count) {
  float extreme = 0;
  for (int i = 0; i < count; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  return extreme;
}

// The nearest code to x / d + offset in [0, most]; d may be 0.
int NearestCode(float x, float d, float offset, int most) {
  const float code = d == 0 ? offset : x / d + offset;
  return std::clamp(static_cast<int>(std::floor(code + 0.5f)), 0, most);
}

std::byte Pair(int low, int high) {
  return static_cast<std::byte>(low | high << 4);
}

void WriteQ8_0(const float* x, std::byte* b) {
  const Fp16 d = ToFp16(std::fabs(Extreme(x, 32)) / 127);
  StoreHalf(d, b);
  for (int i = 0; i < 32; ++i) {
    const int code = NearestCode(x[i], ToFloat(d), 128, 255) - 128;
    b[2 + i] = static_cast<std::byte>(std::max(code, -127));
  }
}

// q4_0 and q5_0: the extreme value gets the code 0.
template <int kMost>
std::array<int, 32> WriteSigned(const float* x, std::byte* b) {
  constexpr int kMiddle = (kMost + 1) / 2;
  const Fp16 d = ToFp16(Extreme(x, 32) / -kMiddle);
  StoreHalf(d, b);
  std::array<int, 32> codes;
  for (int i = 0; i < 32; ++i) {
    codes[i] = NearestCode(x[i], ToFloat(d), kMiddle, kMost);
  }
  return codes;
}

// q4_1 and q5_1: the range from the least to the greatest value.
template <int kMost>
std::array<int, 32> WriteRange(const float* x, std::byte* b) {
  const auto [least, greatest] = std::minmax_element(x, x + 32);
  const Fp16 d = ToFp16((*greatest - *least) / kMost);
  const Fp16 m = ToFp16(*least);
  StoreHalf(d, b);
  StoreHalf(m, b + 2);
  std::array<int, 32> codes;
  for (int i = 0; i < 32; ++i) {
    codes[i] = NearestCode(x[i] - ToFloat(m), ToFloat(d), 0, kMost);
  }
  return codes;
}

void StoreNibbles(const std::array<int, 32>& codes, std::byte* target) {
  for (int i = 0; i < 16; ++i) {
    target[i] = Pair(codes[i] & 15, codes[i + 16] & 15);
  }
}

void StoreFifths(const std::array<int, 32>& codes, std::byte* target) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) {
    bits |= static_cast<uint32_t>(codes[i] >> 4) << i;
  }
  std::memcpy(target, &bits, sizeof(bits));
}

void WriteQ4_0(const float* x, std::byte* b) {
  StoreNibbles(WriteSigned<15>(x, b), b + 2);
}

void WriteQ4_1(const float* x, std::byte* b) {
  StoreNibbles(WriteRange<15>(x, b), b + 4);
}

void WriteQ5_0(const float* x, std::byte* b) {
  const std::array<int, 32> codes = WriteSigned<31>(x, b);
  StoreFifths(codes, b + 2);
  StoreNibbles(codes, b + 6);
}

void WriteQ5_1(const float* x, std::byte* b) {
  const std::array<int, 32> codes = WriteRange<31>(x, b);
  StoreFifths(codes, b + 4);
  StoreNibbles(codes, b + 8);
}

// A scale and an offset (subtracted) of some elements, and how wrong they are.
struct Fit {
  double scale = 0;
  double min = 0;
  double error = 0;
};

// What the codes of (scale, min) miss, squared and weighted by magnitude.
double ErrorOf(const float* x, int count, const Fit& fit, int most) {
  double error = 0;
  for (int i = 0; i < count; ++i) {
    const int code = NearestCode(static_cast<float>(x[i] + fit.min),
                                 static_cast<float>(fit.scale), 0, most);
    const double miss = fit.scale * code - fit.min - x[i];
    error += (0.01 + std::fabs(x[i])) * miss * miss;
  }
  return error;
}

// The best of the full range narrowed by up to a tenth at either side.
Fit FitRange(const float* x) {
  const auto [least, greatest] = std::minmax_element(x, x + 32);
  const double low = std::min(0.0f, *least);
  const double range = std::max(0.0f, *greatest) - low;
  Fit best;
  for (int trial = 0; trial < 36; ++trial) {
    const double cut_low = trial % 6 * 0.02;
    const double cut_high = trial / 6 * 0.02;
    Fit fit;
    fit.min = -(low + cut_low * -low);
    fit.scale = (range * (1 - cut_high) - cut_low * -low) / 15;
    fit.error = ErrorOf(x, 32, fit, 15);
    if (trial == 0 || fit.error < best.error) best = fit;
  }
  return best;
}

void StoreScaleAndMin(int i, int scale, int min, std::byte* scales) {
  const auto put = [scales](int at, int bits) {
    scales[at] |= static_cast<std::byte>(bits);
  };
  if (i < 4) {
    put(i, scale);
    put(i + 4, min);
  } else {
    put(i + 4, (scale & 15) | (min & 15) << 4);
    put(i - 4, scale >> 4 << 6);
    put(i, min >> 4 << 6);
  }
}

void WriteQ4_K(const float* x, std::byte* b) {
  std::array<Fit, 8> fits;
  double most_scale = 0;
  double most_min = 0;
  for (int i = 0; i < 8; ++i) {
    fits[i] = FitRange(x + 32 * i);
    most_scale = std::max(most_scale, fits[i].scale);
    most_min = std::max(most_min, fits[i].min);
  }
  const Fp16 d = ToFp16(static_cast<float>(most_scale / 63));
  const Fp16 m = ToFp16(static_cast<float>(most_min / 63));
  std::memset(b, 0, 144);
  StoreHalf(d, b);
  StoreHalf(m, b + 2);
  for (int i = 0; i < 8; ++i) {
    const int scale =
        NearestCode(static_cast<float>(fits[i].scale), ToFloat(d), 0, 63);
    const int min =
        NearestCode(static_cast<float>(fits[i].min), ToFloat(m), 0, 63);
    StoreScaleAndMin(i, scale, min, b + 4);
    for (int l = 0; l < 32; ++l) {
      const int code = NearestCode(x[32 * i + l] + ToFloat(m) * min,
                                   ToFloat(d) * scale, 0, 15);
      b[16 + i / 2 * 32 + l] |= static_cast<std::byte>(code << (i % 2 * 4));
    }
  }
}

// The best of scales around that which gives the extreme value the code 0.
double FitSigned(const float* x) {
  const double extreme = Extreme(x, 16);
  double best = 0;
  double best_error = 0;
  for (int trial = -9; trial <= 9; ++trial) {
    const double scale = extreme / -(32 + 0.1 * trial);
    const Fit fit = {.scale = scale, .min = scale * 32};
    const double error = ErrorOf(x, 16, fit, 63);
    if (trial == -9 || error < best_error) {
      best = scale;
      best_error = error;
    }
  }
  return best;
}

void WriteQ6_K(const float* x, std::byte* b) {
  std::array<float, 16> scales;
  for (int i = 0; i < 16; ++i) {
    scales[i] = static_cast<float>(FitSigned(x + 16 * i));
  }
  const Fp16 d = ToFp16(Extreme(scales.data(), 16) / -128);
  std::memset(b, 0, 210);
  StoreHalf(d, b + 208);
  for (int i = 0; i < 256; ++i) {
    const int scale = NearestCode(scales[i / 16], ToFloat(d), 128, 255) - 128;
    b[192 + i / 16] = static_cast<std::byte>(scale);
    const int code = NearestCode(x[i], ToFloat(d) * scale, 32, 63);
    const int quarter = i % 128 / 32;
    b[i / 128 * 64 + quarter % 2 * 32 + i % 32] |=
        static_cast<std::byte>((code & 15) << (quarter / 2 * 4));
    b[128 + i / 128 * 32 + i % 32] |=
        static_cast<std::byte>(code >> 4 << (2 * quarter));
  }
}

template <typename T, T (*kNarrow)(float)>
void WritePlain(const float* x, std::byte* target) {
  const T value = kNarrow(*x);
  std::memcpy(target, &value, sizeof(value));
}

float Same(float value) { return value; }

using WriteBlock = void (*)(const float* source, std::byte* block);

// By WeightType; null for what cannot be written.
constexpr std::array<WriteBlock, kWeightTypes.size()> kWriters = {
    WritePlain<float, Same>,
    WritePlain<Bf16, ToBf16>,
    WritePlain<Fp16, ToFp16>,
    WriteQ8_0,
    WriteQ4_0,
    WriteQ4_1,
    WriteQ5_0,
    WriteQ5_1,
    nullptr,
    nullptr,
    WriteQ4_K,
    nullptr,
    WriteQ6_K};

}  // namespace

ScaleAndMin UnpackScaleAndMin(std::span<const std::byte, 12> scales, int i) {
  const auto at = [scales](int byte) { return Byte(scales[byte]); };
  if (i < 4) {
    return {static_cast<uint8_t>(at(i) & 63),
            static_cast<uint8_t>(at(i + 4) & 63)};
  }
  return {static_cast<uint8_t>((at(i + 4) & 15) | at(i - 4) >> 6 << 4),
          static_cast<uint8_t>(at(i + 4) >> 4 | at(i) >> 6 << 4)};
}

std::span<const int> HalfOffsets(WeightType type) {
  static constexpr std::array<int, 2> kFirst = {0, 2};
  static constexpr std::array<int, 2> kQ2_K = {80, 82};
  static constexpr std::array<int, 1> kQ3_K = {108};
  static constexpr std::array<int, 1> kQ6_K = {208};
  static constexpr std::array<int, 1> kTq1_0 = {52};
  static constexpr std::array<int, 1> kTq2_0 = {64};
  switch (type) {
    case WeightType::kQ8_0:
    case WeightType::kQ4_0:
    case WeightType::kQ5_0:
    case WeightType::kIq4Nl:
    case WeightType::kIq4Xs:
      return std::span(kFirst).first(1);
    case WeightType::kQ4_1:
    case WeightType::kQ5_1:
    case WeightType::kQ4_K:
    case WeightType::kQ5_K:
      return kFirst;
    case WeightType::kQ2_K:
      return kQ2_K;
    case WeightType::kQ3_K:
      return kQ3_K;
    case WeightType::kQ6_K:
      return kQ6_K;
    case WeightType::kTq1_0:
      return kTq1_0;
    case WeightType::kTq2_0:
      return kTq2_0;
    default:
      return {};
  }
}

void DequantizeRow(WeightType type, const std::byte* source, int64_t count,
                   float* target) {
  switch (type) {
    case WeightType::kFp32:
      return WidenPlain<float>(source, count, target);
    case WeightType::kBf16:
      return WidenPlain<Bf16>(source, count, target);
    case WeightType::kFp16:
      return WidenPlain<Fp16>(source, count, target);
    case WeightType::kNf4:
      return DequantizeFourBit(kNf4Values, source, count, target);
    case WeightType::kFp4:
      return DequantizeFourBit(kFp4Values, source, count, target);
    case WeightType::kFp8:
      return DequantizeFp8(source, count, target);
    default:
      break;
  }
  const WeightTypeInfo& info = InfoOf(type);
  const ReadBlock read = kReaders[static_cast<size_t>(type)];
  for (int64_t i = 0; i < count; i += info.elements) {
    read(source, target + i);
    source += info.bytes;
  }
}

void DequantizeRow(const RawMatrix& matrix, int64_t row, float* target) {
  DequantizeRow(matrix.type, matrix.row(row), matrix.cols, target);
}

bool CanQuantize(WeightType type) {
  return kWriters[static_cast<size_t>(type)] != nullptr;
}

std::string WrittenTypes() {
  std::string list;
  for (size_t i = 0; i < kWeightTypes.size(); ++i) {
    if (kWriters[i] == nullptr) continue;
    if (!list.empty()) list += ", ";
    list += kWeightTypes[i].name;
  }
  return list;
}

void QuantizeRow(WeightType type, const float* source, int64_t count,
                 std::byte* target) {
  if (type == WeightType::kFp8) return QuantizeFp8(source, count, target);
  const WeightTypeInfo& info = InfoOf(type);
  const WriteBlock write = kWriters[static_cast<size_t>(type)];
  for (int64_t i = 0; i < count; i += info.elements) {
    write(source + i, target);
    target += info.bytes;
  }
}

}  // namespace caravan::worker
