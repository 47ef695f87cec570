#include "worker/ops/cuda/geometry.h"

#include <gtest/gtest.h>

#include <vector>

namespace caravan::worker::cuda {
namespace {

constexpr int kH100 = 132;

TEST(GeometryTest, ProductsCoverAllRowsAndTokens) {
  for (const int64_t row_tiles : {1, 3, 256, 384, 1792, 8016}) {
    for (const int segments : {1, 8}) {
      for (const int64_t tokens : {1, 8, 9, 17, 33, 64, 65, 2048}) {
        const MmaShape shape = ShapeOfMma(row_tiles, segments, tokens, kH100);
        const int64_t tiles_of_block = segments == 1 ? shape.warps : 1;
        EXPECT_GE(shape.launch.x * tiles_of_block, row_tiles);
        EXPECT_LT((shape.launch.x - 1) * tiles_of_block, row_tiles);
        EXPECT_GE(shape.launch.y * shape.token_tiles * kMmaTokens, tokens);
        EXPECT_EQ(shape.launch.threads, shape.warps * 32);
        EXPECT_LE(shape.launch.threads, 256);
        EXPECT_LE(shape.launch.shared_bytes, 48 << 10);
      }
    }
  }
}

TEST(GeometryTest, FewTokensAreNotComputedInVain) {
  EXPECT_EQ(ShapeOfMma(384, 1, 1, kH100).token_tiles, 1);
  EXPECT_EQ(ShapeOfMma(384, 1, 9, kH100).token_tiles, 2);
  EXPECT_EQ(ShapeOfMma(384, 1, 32, kH100).token_tiles, 4);
  EXPECT_EQ(ShapeOfMma(384, 1, 64, kH100).token_tiles, 8);
}

TEST(GeometryTest, EveryMultiprocessorHasABlockOfAnH100sMatrices) {
  EXPECT_GE(ShapeOfMma(384, 1, 1, kH100).launch.x, kH100);   // qkv of 8B
  EXPECT_GE(ShapeOfMma(1792, 1, 1, kH100).launch.x, kH100);  // gate and up
  EXPECT_GE(ShapeOfMma(8016, 1, 1, kH100).launch.x, kH100);  // head
}

TEST(GeometryTest, PlacesOfTokensFollowTheirRows) {
  const std::vector<BlockId> first = {7, 3};
  const std::vector<BlockId> second = {1};
  const std::vector<AttentionRow> rows = {{0, 3, 14, first}, {3, 1, 0, second}};
  const AttentionTables tables = MakeAttentionTables(rows, 512, 4, 100);
  ASSERT_EQ(tables.places.size(), 4u);
  EXPECT_EQ(tables.places[2].position, 16);
  EXPECT_EQ(tables.places[2].blocks, 0);
  EXPECT_EQ(tables.places[3].position, 0);
  EXPECT_EQ(tables.places[3].blocks, 2);
  EXPECT_EQ(tables.blocks, (std::vector<int32_t>{7, 3, 1}));
  EXPECT_EQ(tables.partial_count, 0);  // one split each
  EXPECT_EQ(tables.max_splits, 1);
}

TEST(GeometryTest, TilesHoldTokensOfOneRowOnly) {
  const std::vector<BlockId> blocks(8);
  const std::vector<AttentionRow> rows = {{0, 9, 0, blocks}, {9, 2, 5, blocks}};
  const AttentionTables tables = MakeAttentionTables(rows, 512, 4, 0);
  std::vector<std::pair<int32_t, int32_t>> tiles;
  for (const TokenTile& tile : tables.tiles) {
    tiles.push_back({tile.first, tile.count});
  }
  const std::vector<std::pair<int32_t, int32_t>> expected = {
      {0, 4}, {4, 4}, {8, 1}, {9, 2}};
  EXPECT_EQ(tiles, expected);
}

TEST(GeometryTest, SplitsOfFewTokensGetPlacesForPartialResults) {
  const std::vector<BlockId> blocks(200);
  const std::vector<AttentionRow> rows = {
      {0, 1, 2000, blocks}, {1, 2, 511, blocks}, {3, 100, 1000, blocks}};
  const AttentionTables tables = MakeAttentionTables(rows, 512, 4, 100);
  EXPECT_EQ(tables.places[0].partial, 0);  // 4 splits
  EXPECT_EQ(tables.places[1].partial, 4);  // 1
  EXPECT_EQ(tables.places[2].partial, 5);  // 2
  EXPECT_EQ(tables.places[3].partial, -1);
  EXPECT_EQ(tables.partial_count, 7);
  EXPECT_EQ(tables.max_splits, 4);
}

TEST(GeometryTest, RowsThatFindNoPlaceMergeWhereTheyAre) {
  const std::vector<BlockId> blocks(200);
  const std::vector<AttentionRow> rows = {{0, 1, 2000, blocks},
                                          {1, 1, 2000, blocks}};
  const AttentionTables tables = MakeAttentionTables(rows, 512, 4, 7);
  EXPECT_EQ(tables.places[0].partial, 0);
  EXPECT_EQ(tables.places[1].partial, -1);
  EXPECT_EQ(tables.partial_count, 4);
}

TEST(GeometryTest, TilesHoldWholeGroupsOfHeads) {
  struct Case {
    int32_t heads, kv_heads, chunk_heads, chunks, tokens;
  };
  for (const Case& c : std::vector<Case>{{32, 8, 4, 1, 4},
                                         {32, 32, 1, 1, 16},
                                         {64, 8, 8, 1, 2},
                                         {7, 1, 7, 1, 2},
                                         {20, 1, 10, 2, 1},
                                         {71, 1, 15, 5, 1}}) {
    const TileShape shape = ShapeOfTile(c.heads, c.kv_heads);
    EXPECT_EQ(shape.chunk_heads, c.chunk_heads) << c.heads;
    EXPECT_EQ(shape.chunks, c.chunks) << c.heads;
    EXPECT_EQ(shape.tokens, c.tokens) << c.heads;
  }
}

TEST(GeometryTest, AttentionOfWideHeadsFitsSharedMemory) {
  EXPECT_LE(MmaAttendKernel<>::SharedBytes(128), 48 << 10);
  EXPECT_LE(MmaAttendKernel<>::SharedBytes(256), 99 << 10);  // of sm_86
}

TEST(GeometryTest, SmallGridsStartEarlyWhereTheArchitectureCan) {
  const LaunchShape layer = {.x = 256, .y = 1, .z = 1, .threads = 256};
  EXPECT_TRUE(StartsEarly(layer, 9, 132));
  EXPECT_TRUE(StartsEarly(layer, 10, 132));
  EXPECT_FALSE(StartsEarly(layer, 8, 132)) << "sm_80 has no such launches";
  EXPECT_TRUE(StartsEarly({.x = 16, .y = 132}, 9, 132));
  EXPECT_FALSE(StartsEarly({.x = 16, .y = 132, .z = 2}, 9, 132));
  EXPECT_FALSE(StartsEarly({.x = int64_t{1} << 31, .y = 1 << 16}, 9, 132));
}

}  // namespace
}  // namespace caravan::worker::cuda
