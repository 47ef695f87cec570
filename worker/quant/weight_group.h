// 32 weights of one row in any format whose products with int8 activations
// have a kernel: the reading that packing and the reference share.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_WORKER_QUANT_WEIGHT_GROUP_H_
#define CARAVAN_WORKER_QUANT_WEIGHT_GROUP_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "worker/quant/int8_activations.h"
#include "worker/quant/int8_panel.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker::quant {

// The packed form of a type, which loses nothing; nothing for plain types and
// for block types whose products are made in fp32 (q2_k, tq1_0, tq2_0; of nf4
// and fp4 in four_bit_product.h).
//   q8_0, q5_0, iq4_nl    kBytes            q4_0   kNibbles
//   q5_1                  kBytesMin         q4_1   kNibblesMin
//   q5_k                  kBytesOfK         q4_k   kNibblesOfK
//   q6_k, q3_k, iq4_xs    kBytesHalvesOfK
std::optional<Int8Format> Int8FormatOf(WeightType type);

// Element i is q[i] * scale(i / 16) + min(): the first product is rounded
// once, and so is the sum; scale and min are exact.
struct WeightGroup {
  std::array<int8_t, kGroupElements> q;
  uint16_t d = 0;                    // fp16
  uint16_t m = 0;                    // fp16; negated where the type subtracts
  std::array<int8_t, 2> s = {1, 1};  // of the halves
  uint8_t t = 0;                     // times m

  float scale(int64_t half) const;
  float min() const;
};

// Group `g` of a row of `type`, which has an Int8Format.
WeightGroup ReadGroup(WeightType type, const std::byte* row, int64_t g);

// y = a row of a matrix times a row of activations, as int8_panel.h defines
// it: the literal form. Borders count elements; 2 or 9 of them.
float ReferenceProduct(WeightType type, const std::byte* row,
                       const ActivationGroup* x, const int64_t* borders,
                       int segments);

}  // namespace caravan::worker::quant

#endif  // CARAVAN_WORKER_QUANT_WEIGHT_GROUP_H_
