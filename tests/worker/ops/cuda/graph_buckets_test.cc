#include "worker/ops/cuda/graph_buckets.h"

#include <gtest/gtest.h>

#include <vector>

namespace caravan::worker::cuda {
namespace {

TEST(GraphBucketsTest, BucketsHoldTheirTokensAndWasteLessThanATile) {
  int32_t before = 0;
  for (int32_t tokens = 1; tokens <= kMaxGraphTokens; ++tokens) {
    const std::optional<int32_t> bucket = TokenBucket(tokens, 1000);
    ASSERT_TRUE(bucket.has_value()) << tokens;
    EXPECT_GE(*bucket, tokens);
    EXPECT_LT(*bucket - tokens, tokens <= 64 ? 8 : tokens <= 128 ? 16 : 32);
    EXPECT_GE(*bucket, before) << "greater steps have no smaller buckets";
    EXPECT_EQ(TokenBucket(*bucket, 1000), bucket) << "a bucket is its own";
    before = *bucket;
  }
}

TEST(GraphBucketsTest, NoBucketGoesBeyondWhatTheStepHasRoomFor) {
  EXPECT_EQ(TokenBucket(0, 100), std::nullopt);
  EXPECT_EQ(TokenBucket(3, 3), std::nullopt);  // would be 4
  EXPECT_EQ(TokenBucket(9, 15), std::nullopt);
  EXPECT_EQ(TokenBucket(9, 16), 16);
  EXPECT_EQ(TokenBucket(kMaxGraphTokens + 1, 1000), std::nullopt);
}

TEST(GraphBucketsTest, SplitsAreRoundedUpToPowersOfTwo) {
  EXPECT_EQ(SplitBucket(1), 1);
  EXPECT_EQ(SplitBucket(2), 2);
  EXPECT_EQ(SplitBucket(3), 4);
  EXPECT_EQ(SplitBucket(256), 256);
}

TEST(GraphBucketsTest, AStepDecodesWhenEveryRowHasOneToken) {
  std::vector<AttentionRow> rows(2);
  rows[0].token_count = rows[1].token_count = 1;
  EXPECT_TRUE(Decodes(rows));
  rows[1].token_count = 2;
  EXPECT_FALSE(Decodes(rows));
}

TEST(GraphUsesTest, WhatWasUsedLeastRecentlyMakesRoom) {
  GraphUses uses(2);
  EXPECT_EQ(uses.Touch({1, 1}), std::nullopt);
  EXPECT_EQ(uses.Touch({2, 1}), std::nullopt);
  EXPECT_EQ(uses.Touch({1, 1}), std::nullopt);
  EXPECT_EQ(uses.Touch({1, 2}), (GraphKey{2, 1}));
  EXPECT_EQ(uses.Touch({2, 1}), (GraphKey{1, 1}));
}

}  // namespace
}  // namespace caravan::worker::cuda
