// Weights of 4 bits for tensor cores: codes with a scale (and a minimum) for
// each 32 columns of a row, become bf16 in registers. Plain functions, tested
// on the host.
//
// The class: a weight is the fp32 value that DequantizeRow (worker/tensor/
// quantize.h) gives, rounded to bf16; the product is that of bf16 fragments,
// bit by bit.
//
//   codes   [row / 16][k / 32][lane][2 words]   a word is one row's
//   scales  [row / 16][k / 32][row % 8]         of rows r and r + 8
//
// Lane l has rows l / 4 and l / 4 + 8 as in operand A (fragments.h); the 8
// nibbles of a word are columns 2 c + {0, 1, 8, 9, 16, 17, 24, 25}, c = l % 4,
// the lowest first. The types' blocks of 32 become their own bytes again: 18
// for q4_0 and iq4_nl, 20 for q4_1; nf4 and fp4 take 20, a scale for each 32.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_FOUR_BIT_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_FOUR_BIT_H_

#include <cstdint>

#include "worker/ops/cuda/kernels/fragments.h"
#include "worker/ops/cuda/kernels/thread.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker::cuda {

// What stands beside codes; what a value is made of.
enum class FourBitScale : int32_t {
  kHalf,         // fp16 d: d * table[q]
  kHalfMinimum,  // fp16 d and m: d * table[q] + m
  kFloat,        // fp32 d: table[q] * d
};

// A format: where codes lie in a checkpoint's block, and what they mean.
struct FourBitFormat {
  FourBitScale scale = FourBitScale::kHalf;
  bool pairs = false;  // elements 2i and 2i + 1 in byte i, the first one high;
                       // else i low and i + 16 high
  int32_t block_columns = 32;
  int32_t block_bytes = 18;
  int32_t code_begin = 2;  // bytes before the codes
  float table[16] = {};

  // Bytes of 32 columns' scales, of one row.
  CARAVAN_HOST_DEVICE constexpr int32_t scale_bytes() const {
    return scale == FourBitScale::kHalf ? 2 : 4;
  }
};

// Whether `type` has a format, which is then set.
bool FourBitFormatOf(WeightType type, FourBitFormat& format);

inline constexpr int kFourBitLaneWords = 2;  // of a step

// Words before the word of (row, step of 32 k, quad c) in codes.
CARAVAN_HOST_DEVICE constexpr int64_t CodeWord(int64_t row, int64_t step,
                                               int quad, int64_t steps) {
  const int64_t lane = row % 8 * 4 + quad;
  return ((row / 16 * steps + step) * kWarpLanes + lane) * kFourBitLaneWords +
         row % 16 / 8;
}

// Column of nibble `n` (0 to 7) of a word of quad `c`, within its step.
CARAVAN_HOST_DEVICE constexpr int CodeColumn(int quad, int n) {
  return 2 * quad + n % 2 + n / 2 * 8;
}

// Scales of a step: those of row r and of r + 8 side by side.
CARAVAN_HOST_DEVICE constexpr int64_t ScalePlace(int64_t row, int64_t step,
                                                 int64_t steps) {
  return ((row / 16 * steps + step) * 8 + row % 8) * 2 + row % 16 / 8;
}

// Bytes of codes and of scales, of whole tiles.
CARAVAN_HOST_DEVICE constexpr int64_t CodeBytes(int64_t row_tiles,
                                                int64_t depth) {
  return row_tiles * kMmaRows * depth / 2;
}
CARAVAN_HOST_DEVICE constexpr int64_t ScaleBytes(const FourBitFormat& format,
                                                 int64_t row_tiles,
                                                 int64_t depth) {
  return row_tiles * kMmaRows * (depth / kStepDepth) * format.scale_bytes();
}

// A row's scale of 32 columns, as a product needs it.
struct ScaleOfRow {
  float d = 0;
  float m = 0;
};

// From the word(s) that a block of a checkpoint begins with, or that lie in
// scales.
CARAVAN_DEVICE ScaleOfRow ReadScale(FourBitScale kind, uint32_t bits) {
  switch (kind) {
    case FourBitScale::kHalf:
      return {HalfToFloat(static_cast<uint16_t>(bits)), 0.0f};
    case FourBitScale::kHalfMinimum:
      return {HalfToFloat(static_cast<uint16_t>(bits)),
              HalfToFloat(static_cast<uint16_t>(bits >> 16))};
    case FourBitScale::kFloat:
      return {std::bit_cast<float>(bits), 0.0f};
  }
  return {};
}

// In the order of DequantizeRow: one product, then one sum.
CARAVAN_DEVICE float FourBitValue(FourBitScale kind, float value,
                                  const ScaleOfRow& scale) {
  const float product = scale.d * value;
  return kind == FourBitScale::kHalfMinimum ? product + scale.m : product;
}

// A matrix of 4 bits on the device.
struct FourBitWeights {
  const uint32_t* codes = nullptr;
  const unsigned char* scales = nullptr;
  FourBitFormat format;

  CARAVAN_DEVICE uint32_t ScaleBits(int64_t row, int64_t step,
                                    int64_t steps) const {
    const int64_t place = ScalePlace(row, step, steps);
    return format.scale == FourBitScale::kHalf
               ? reinterpret_cast<const uint16_t*>(scales)[place]
               : reinterpret_cast<const uint32_t*>(scales)[place];
  }
  // The fp32 value at padded column `p`.
  CARAVAN_DEVICE float Read(int64_t row, int64_t p, int64_t depth) const {
    const int64_t steps = depth / kStepDepth;
    const int64_t step = p / kStepDepth;
    const int column = static_cast<int>(p % kStepDepth);
    const int nibble = column / 8 * 2 + column % 2;
    const uint32_t word = codes[CodeWord(row, step, column % 8 / 2, steps)];
    return FourBitValue(format.scale, format.table[word >> 4 * nibble & 15],
                        ReadScale(format.scale, ScaleBits(row, step, steps)));
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_FOUR_BIT_H_
