// Products of bitsandbytes' 4-bit blocks (worker/tensor/four_bit.h) with fp32
// activations: the literal form, and the packed form that kernels read.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_WORKER_QUANT_FOUR_BIT_PRODUCT_H_
#define CARAVAN_WORKER_QUANT_FOUR_BIT_PRODUCT_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "worker/quant/int8_panel.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker::quant {

// The 16 values that codes of nf4 and fp4 stand for; null for other types.
const float* FourBitTable(WeightType type);

// y = a row of such a matrix times a row of activations, FourBitGroups of
// worker/ops/ops.h. Borders count elements, in multiples of 64; 2 or 9 of them.
float ReferenceFourBitProduct(WeightType type, const std::byte* row,
                              const float* x, const int64_t* borders,
                              int segments);

// A panel is up to 4 vectors of 16 rows, stored as one stream: for each block
// of 64 elements 8 lines of codes, each [vector][16 rows] words of 32 bits,
// word j of a row holding its elements 8 j to 8 j + 7 from the lowest four bits
// up, and then [vector][16 rows] fp32 scales.

// Bytes of one vector over `blocks` blocks of K.
int64_t FourBitVectorBytes(int64_t blocks);

// A vector among those of its panel.
struct FourBitPlace {
  int vectors = kPanelVectors;
  int vector = 0;
};

// 16 rows of a 4-bit type; null is padding, left as it is: zero.
void PackFourBit(const std::array<const std::byte*, kLanes>& rows,
                 int64_t blocks, const FourBitPlace& place, std::byte* panel);

// The packed row of one lane, widened: the values of DequantizeRow of its
// source.
void UnpackFourBit(WeightType type, const FourBitPlace& place, int lane,
                   int64_t blocks, const std::byte* panel, float* out);

}  // namespace caravan::worker::quant

#endif  // CARAVAN_WORKER_QUANT_FOUR_BIT_PRODUCT_H_
