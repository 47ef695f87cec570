// Rows of group formats in the order in which the int8 kernels read them
// (int8_panel.h), and back.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_WORKER_QUANT_INT8_PACKING_H_
#define CARAVAN_WORKER_QUANT_INT8_PACKING_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "worker/quant/int8_panel.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker::quant {

// Bytes of one vector of 16 rows over `groups` groups of K; formats of two
// levels want a multiple of 8.
int64_t VectorBytes(Int8Format format, int64_t groups);

// Where a vector lies: in a panel of `vectors` of `format`.
struct VectorPlace {
  Int8Format format;
  int vectors = kPanelVectors;  // of the panel
  int vector = 0;
};

// 16 rows of `type`, whose Int8FormatOf is the place's format; null is padding,
// left as it is: zero.
void PackVector(WeightType type,
                const std::array<const std::byte*, kLanes>& rows,
                int64_t groups, const VectorPlace& place, std::byte* panel);

// The packed row of one lane, widened: the values of DequantizeRow of its
// source.
void UnpackRow(const VectorPlace& place, int lane, int64_t groups,
               const std::byte* panel, float* out);

}  // namespace caravan::worker::quant

#endif  // CARAVAN_WORKER_QUANT_INT8_PACKING_H_
