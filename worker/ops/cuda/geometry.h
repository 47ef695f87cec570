// Launch arithmetic: plain functions of shapes, tested without a device. What
// they choose never changes a bit of a result.
#ifndef CARAVAN_WORKER_OPS_CUDA_GEOMETRY_H_
#define CARAVAN_WORKER_OPS_CUDA_GEOMETRY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "worker/ops/backend.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/ops.h"

namespace caravan::worker::cuda {

constexpr int64_t CeilDiv(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit;
}
constexpr int64_t RoundUp(int64_t value, int64_t unit) {
  return CeilDiv(value, unit) * unit;
}

// K in one segment, or in 8 on borders of `unit` (ops.h), each padded to whole
// steps of the tensor cores.
SegmentTable OneSegment(int64_t k);
SegmentTable EightSegments(int64_t k, int64_t unit);
// Those of a rank: the others are empty, and behind.
SegmentTable OwnSegments(const OwnedSegments& owned, int64_t k, int64_t unit);

// How a product on tensor cores is cut.
struct MmaShape {
  int32_t token_tiles = 1;  // of a warp: 1, 2, 4 or 8
  int32_t warps = 1;        // of a block
  LaunchShape launch;
};
// `row_tiles` of 16 packed rows, `tokens` >= 1, on `multiprocessors`.
MmaShape ShapeOfMma(int64_t row_tiles, int segments, int64_t tokens,
                    int multiprocessors);

// How a product with wgmma is cut: the kernel WgmmaGemmKernel<tokens, tiles>.
struct WgmmaShape {
  int32_t tokens = 8;  // of a block: 8, 32 or 128
  int32_t tiles = 1;   // of 64 rows for a group of warps: 1 or, with 128, 2
  LaunchShape launch;
};
WgmmaShape ShapeOfWgmma(int64_t row_tiles, int segments, int64_t tokens,
                        int multiprocessors);

// Whether a grid may start while the one before it ends, on devices of compute
// capability `major`: from 9 on, and where it has few blocks for each
// multiprocessor, since what is saved is the time between two grids.
bool StartsEarly(const LaunchShape& shape, int major, int multiprocessors);

// The tables of a step's attention.
struct AttentionTables {
  std::vector<TokenPlace> places;  // of each token
  std::vector<TokenTile> tiles;    // for tensor cores
  std::vector<int32_t> blocks;     // of all rows, one after the other
  int32_t max_splits = 0;          // of the tokens with partial results, else 1
  int32_t partial_count = 0;       // partial results in all
};
// Rows of few tokens get partial results, so that their splits run at the same
// time, while `partial_slots` last; others merge split after split, which gives
// the same bits. `tile_tokens` are those of a tile.
AttentionTables MakeAttentionTables(std::span<const AttentionRow> rows,
                                    int32_t split_keys, int32_t tile_tokens,
                                    int32_t partial_slots);

// Heads of a group in one tile of 16 rows, and tokens.
struct TileShape {
  int32_t chunk_heads = 1;
  int32_t chunks = 1;  // of a group
  int32_t tokens = 1;
};
TileShape ShapeOfTile(int32_t heads, int32_t kv_heads);

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_GEOMETRY_H_
