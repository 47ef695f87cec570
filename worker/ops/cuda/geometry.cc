#include "worker/ops/cuda/geometry.h"

#include <algorithm>
#include <array>

namespace caravan::worker::cuda {
namespace {

// Rows of up to as many tokens run their splits at the same time.
constexpr int32_t kFewTokens = 16;

SegmentTable Padded(SegmentTable table) {
  table.padded[0] = 0;
  for (int s = 0; s < table.count; ++s) {
    table.padded[s + 1] =
        table.padded[s] + static_cast<int32_t>(RoundUp(
                              table.begin[s + 1] - table.begin[s], kStepDepth));
  }
  return table;
}

// Tiles of tokens for a warp: no more than there are, so that none is
// computed in vain.
int32_t TokenTilesOfWarp(int64_t tiles) {
  for (const int32_t count : {1, 2, 4}) {
    if (tiles <= count) return count;
  }
  return 8;
}

void AddTiles(const AttentionRow& row, int32_t tile_tokens,
              AttentionTables& tables) {
  for (int32_t i = 0; i < row.token_count; i += tile_tokens) {
    tables.tiles.push_back(
        {row.first_token + i, std::min(tile_tokens, row.token_count - i)});
  }
}

// Splits of all tokens of a row.
int64_t SplitsOf(const AttentionRow& row, int32_t split_keys) {
  int64_t splits = 0;
  for (int32_t i = 0; i < row.token_count; ++i) {
    splits += (row.first_position + i) / split_keys + 1;
  }
  return splits;
}

}  // namespace

SegmentTable OneSegment(int64_t k) {
  SegmentTable table;
  table.count = 1;
  table.begin[1] = static_cast<int32_t>(k);
  return Padded(table);
}

SegmentTable EightSegments(int64_t k, int64_t unit) {
  return OwnSegments(OwnedSegments(), k, unit);
}

SegmentTable OwnSegments(const OwnedSegments& owned, int64_t k, int64_t unit) {
  static_assert(kMaxSegments == kSegments);
  const auto borders = OwnedBorders(owned, k, unit);
  SegmentTable table;
  table.count = kSegments;
  for (int s = 0; s <= kSegments; ++s) {
    table.begin[s] = static_cast<int32_t>(borders[s]);
  }
  return Padded(table);
}

MmaShape ShapeOfMma(int64_t row_tiles, int segments, int64_t tokens,
                    int multiprocessors) {
  MmaShape shape;
  const int64_t token_tiles = CeilDiv(tokens, kMmaTokens);
  shape.token_tiles = TokenTilesOfWarp(token_tiles);
  shape.launch.y = CeilDiv(token_tiles, shape.token_tiles);
  if (segments > 1) {
    shape.warps = kMaxSegments;
    shape.launch.x = row_tiles;
    shape.launch.shared_bytes =
        int64_t{4} * kMaxSegments * shape.token_tiles * 4 * kWarpLanes;
  } else {
    // Blocks large enough to share tokens in L1, small enough that every
    // multiprocessor has one.
    while (shape.warps < 8 &&
           row_tiles >= int64_t{4} * shape.warps * multiprocessors) {
      shape.warps *= 2;
    }
    shape.launch.x = CeilDiv(row_tiles, shape.warps);
  }
  shape.launch.threads = shape.warps * kWarpLanes;
  return shape;
}

WgmmaShape ShapeOfWgmma(int64_t row_tiles, int segments, int64_t tokens,
                        int multiprocessors) {
  WgmmaShape shape;
  shape.tokens = tokens <= 8 ? 8 : tokens <= 32 ? 32 : 128;
  shape.launch.y = CeilDiv(tokens, shape.tokens);
  // Twice the rows for as many reads of tokens, where all have work even so.
  using Large = WgmmaGemmKernel<128, 2>;
  const int64_t large_blocks =
      CeilDiv(row_tiles, Large::kRowTiles) * shape.launch.y;
  if (segments == 1 && shape.tokens == 128 && large_blocks >= multiprocessors) {
    shape.tiles = 2;
    shape.launch.shared_bytes = Large::kSharedBytes;
  } else if (shape.tokens == 128) {
    shape.launch.shared_bytes = WgmmaGemmKernel<128, 1>::kSharedBytes;
  } else if (shape.tokens == 32) {
    shape.launch.shared_bytes = WgmmaGemmKernel<32, 1>::kSharedBytes;
  } else {
    shape.launch.shared_bytes = WgmmaGemmKernel<8, 1>::kSharedBytes;
  }
  shape.launch.x = CeilDiv(row_tiles, int64_t{2} * shape.tiles * kGroupWarps);
  shape.launch.threads = Large::kThreads;
  return shape;
}

bool StartsEarly(const LaunchShape& shape, int major, int multiprocessors) {
  constexpr int64_t kFewBlocks = 16;  // of a multiprocessor
  return major >= 9 &&
         shape.x * shape.y * shape.z <= kFewBlocks * multiprocessors;
}

AttentionTables MakeAttentionTables(std::span<const AttentionRow> rows,
                                    int32_t split_keys, int32_t tile_tokens,
                                    int32_t partial_slots) {
  AttentionTables tables;
  tables.max_splits = 1;
  for (const AttentionRow& row : rows) {
    const int64_t splits = SplitsOf(row, split_keys);
    const bool parallel = row.token_count <= kFewTokens &&
                          splits > row.token_count &&
                          tables.partial_count + splits <= partial_slots;
    for (int32_t i = 0; i < row.token_count; ++i) {
      TokenPlace& place = tables.places.emplace_back();
      place.position = row.first_position + i;
      place.blocks = static_cast<int32_t>(tables.blocks.size());
      if (!parallel) continue;
      const int32_t count = place.position / split_keys + 1;
      place.partial = tables.partial_count;
      tables.partial_count += count;
      tables.max_splits = std::max(tables.max_splits, count);
    }
    AddTiles(row, tile_tokens, tables);
    tables.blocks.insert(tables.blocks.end(), row.blocks.begin(),
                         row.blocks.end());
  }
  return tables;
}

TileShape ShapeOfTile(int32_t heads, int32_t kv_heads) {
  const int32_t group = heads / kv_heads;
  TileShape shape;
  shape.chunks = static_cast<int32_t>(CeilDiv(group, kMmaRows));
  shape.chunk_heads = static_cast<int32_t>(CeilDiv(group, shape.chunks));
  shape.tokens = kMmaRows / shape.chunk_heads;
  return shape;
}

}  // namespace caravan::worker::cuda
