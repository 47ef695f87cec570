// Rows of weights between their stored types and fp32: the plain reading of
// every block format, one element at a time, that kernels are tested against.
// All values are little-endian; scales are binary16 unless said otherwise.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_WORKER_TENSOR_QUANTIZE_H_
#define CARAVAN_WORKER_TENSOR_QUANTIZE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "worker/tensor/view.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

// Values of the 4-bit codes of kIq4Nl and kIq4Xs.
inline constexpr std::array<int8_t, 16> kIq4Values = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// The block formats, in the order of their bytes. q is a code, d and m are
// scales; "low half" is the low nibbles of 16 bytes, elements 0 to 15, the high
// nibbles being elements 16 to 31.
//
//   q8_0    d; 32 signed bytes q                      d q
//   q4_0    d; 16 bytes, low half first               d (q - 8)
//   q4_1    d; m; 16 bytes                            d q + m
//   q5_0    d; 32 fifth bits; 16 bytes                d (q - 16)
//   q5_1    d; m; 32 fifth bits; 16 bytes             d q + m
//   q2_k    16 bytes scale|min << 4; 64 bytes; d; m   d s q - m t, by 16
//   q3_k    32 bytes third bits; 64 bytes; 12 bytes of 6-bit scales; d
//                                                     d (s - 32) (q - 4), by 16
//   q4_k    d; m; 12 bytes of 6-bit scales and mins; 128 bytes
//                                                     d s q - m t, by 32
//   q5_k    the same with 32 bytes of fifth bits before the 128
//   q6_k    128 bytes low nibbles; 64 bytes upper bits; 16 signed scales; d
//                                                     d s (q - 32), by 16
//   iq4_nl  d; 16 bytes                               d kIq4Values[q]
//   iq4_xs  d; 8 x 2 upper scale bits; 4 bytes of lower ones; 128 bytes
//                                                     d (s - 32) value, by 32
//   tq1_0   48 bytes of 5 base-3 digits, 4 bytes of 4; d     d (q - 1)
//   tq2_0   64 bytes of 2-bit codes; d                       d (q - 1)
//   fp8     binary32 d; 32 codes of e4m3 (fp8.h)             q d

// `count` elements, a multiple of the type's block, to fp32. Products and sums
// are rounded in the order written above; all but the last are exact.
void DequantizeRow(WeightType type, const std::byte* source, int64_t count,
                   float* target);

// Row `row` of a matrix, wherever it lies, to `cols` floats.
void DequantizeRow(const RawMatrix& matrix, int64_t row, float* target);

// Types that QuantizeRow writes and GGUF files have: fp32, bf16, fp16, q8_0,
// q4_0, q4_1, q5_0, q5_1, q4_k, q6_k.
bool CanQuantize(WeightType type);
// Their names: "fp32, bf16, ...".
std::string WrittenTypes();

// `count` finite elements, a multiple of the type's block, to the type, one of
// those or fp8, whose elements are a whole row. The
// formats of 32 round to nearest against the block's largest value (q8_0, q4_0,
// q5_0) or range (q4_1, q5_1); q4_k and q6_k look for the scales of least
// squared error, weighted by magnitude. Deterministic on every machine.
void QuantizeRow(WeightType type, const float* source, int64_t count,
                 std::byte* target);

// Where the binary16 numbers of a block lie in its bytes; none for plain types
// and those of four_bit.h.
std::span<const int> HalfOffsets(WeightType type);

// The two 6-bit numbers, scale and minimum, of the eighth `i` of a q4_k or q5_k
// block, from its 12 scale bytes.
struct ScaleAndMin {
  uint8_t scale;
  uint8_t min;
};
ScaleAndMin UnpackScaleAndMin(std::span<const std::byte, 12> scales, int i);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_TENSOR_QUANTIZE_H_
