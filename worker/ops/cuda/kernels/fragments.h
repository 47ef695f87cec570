// Where elements lie: maps from (row, column) to storage for operands of the
// tensor cores' mma.sync.m16n8k16 (bf16, fp32 accumulators), and their inverse.
// Plain functions, for host and device, tested against the tables of the PTX
// ISA (section 9.7.14.5).
//
// Each lane of a warp keeps, of A (16 x 16), 8 elements in 4 words; of B
// (16 x 8), 4 in 2; of C (16 x 8), 4 floats. Weights are A, tokens are B: the
// same orientation for one token and for a thousand. Both are stored in the
// order of the registers, so a lane's operand is one 16-byte load, a warp's 512
// consecutive bytes, and shared memory is not needed to turn anything around.
//
//   weights      [row / 16][k / 16][lane][4 words]     A of 16 rows, 16 k
//   activations  [token / 8][k / 32][lane][4 words]    B of 8 tokens, twice
//   keys         [dim / 16][lane][4 words] of a block  B of 8 slots, twice
//   values       [dim / 16][lane][4 words] of a block  B of 8 dims, twice
//
// k counts the padded columns of a SegmentTable.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_FRAGMENTS_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_FRAGMENTS_H_

#include <cstdint>

#include "worker/ops/host_device.h"

namespace caravan::worker::cuda {

inline constexpr int kMmaRows = 16;
inline constexpr int kMmaTokens = 8;
inline constexpr int kMmaDepth = 16;
inline constexpr int kWarpLanes = 32;
// Segments are padded with zeros to whole steps of two mma.
inline constexpr int kStepDepth = 2 * kMmaDepth;
inline constexpr int kMaxSegments = 8;

// Row of C's register `i` (0 to 3) in `lane`, and its column.
CARAVAN_HOST_DEVICE constexpr int AccumulatorRow(int lane, int i) {
  return lane / 4 + (i / 2) * 8;
}
CARAVAN_HOST_DEVICE constexpr int AccumulatorColumn(int lane, int i) {
  return lane % 4 * 2 + i % 2;
}

// Half-words before element (row, k) of weights with `depth` padded columns.
CARAVAN_HOST_DEVICE constexpr int64_t WeightOffset(int64_t row, int64_t k,
                                                   int64_t depth) {
  const int64_t tile = row / 16 * (depth / 16) + k / 16;
  const int64_t lane = row % 8 * 4 + k % 8 / 2;
  const int64_t word = k % 16 / 8 * 2 + row % 16 / 8;
  return (tile * kWarpLanes + lane) * 8 + word * 2 + k % 2;
}

// Half-words before element (token, k) of activations.
CARAVAN_HOST_DEVICE constexpr int64_t ActivationOffset(int64_t token, int64_t k,
                                                       int64_t depth) {
  const int64_t tile = token / 8 * (depth / 32) + k / 32;
  const int64_t lane = token % 8 * 4 + k % 8 / 2;
  const int64_t word = k % 32 / 8;
  return (tile * kWarpLanes + lane) * 8 + word * 2 + k % 2;
}

// Half-words before dimension `dim` of the key, or value, in `slot` of a block.
CARAVAN_HOST_DEVICE constexpr int64_t KeyOffset(int64_t slot, int64_t dim) {
  const int64_t lane = slot % 8 * 4 + dim % 8 / 2;
  const int64_t word = slot / 8 * 2 + dim % 16 / 8;
  return (dim / 16 * kWarpLanes + lane) * 8 + word * 2 + dim % 2;
}
CARAVAN_HOST_DEVICE constexpr int64_t ValueOffset(int64_t slot, int64_t dim) {
  const int64_t lane = dim % 8 * 4 + slot % 8 / 2;
  const int64_t word = dim % 16 / 8 * 2 + slot / 8;
  return (dim / 16 * kWarpLanes + lane) * 8 + word * 2 + slot % 2;
}

// The segments of K: columns [begin[s], begin[s + 1]) of segment s lie at
// padded columns from padded[s], a multiple of kStepDepth, and zeros follow
// them up to padded[s + 1].
struct SegmentTable {
  int32_t count = 1;
  int32_t begin[kMaxSegments + 1] = {};
  int32_t padded[kMaxSegments + 1] = {};

  CARAVAN_HOST_DEVICE constexpr int64_t columns() const { return begin[count]; }
  // Padded columns in all.
  CARAVAN_HOST_DEVICE constexpr int64_t depth() const { return padded[count]; }

  // Where column `k` lies.
  CARAVAN_HOST_DEVICE constexpr int64_t Pad(int64_t k) const {
    int s = 0;
    while (k >= begin[s + 1]) ++s;
    return padded[s] + (k - begin[s]);
  }
  // The column that lies at `p`, or -1 for padding.
  CARAVAN_HOST_DEVICE constexpr int64_t Unpad(int64_t p) const {
    int s = 0;
    while (p >= padded[s + 1]) ++s;
    const int64_t k = begin[s] + (p - padded[s]);
    return k < begin[s + 1] ? k : -1;
  }
};

// Where row `row` of part `part` of a matrix lies in tiles that hold 8 rows of
// gate and the same 8 rows of up, so that one lane gets both.
CARAVAN_HOST_DEVICE constexpr int64_t InterleavedRow(int64_t row, int part) {
  return row / 8 * 16 + part * 8 + row % 8;
}

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_FRAGMENTS_H_
