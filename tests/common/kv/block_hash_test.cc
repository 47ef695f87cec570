#include "common/kv/block_hash.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <set>
#include <string>
#include <vector>

namespace caravan::kv {
namespace {

using ::testing::ElementsAre;

std::string Bytes(char first) {
  std::string bytes(32, '\0');
  std::iota(bytes.begin(), bytes.end(), first);
  return bytes;
}

struct Identity {
  std::string weights_id = Bytes(0);
  std::string fingerprint = Bytes(32);
  HashRootParts parts() const {
    return {.weights_id = weights_id,
            .numerics_class = "cpu-reference/w:fp32/a:fp32/kv:fp32/v1",
            .fingerprint = fingerprint};
  }
};

// Computed by another implementation of XXH3 (the Python package xxhash) from
// the layout in block_hash.h. They hold gateways, routers and workers of
// different builds together: they never change.
TEST(BlockHashTest, GoldenVectors) {
  const Identity identity;
  HashRootParts parts = identity.parts();
  const BlockHash root = HashRoot(parts);
  EXPECT_EQ(root.ToHex(), "63d25bfe3c363d817e8017056602791e");

  std::vector<int32_t> ids(32);
  std::iota(ids.begin(), ids.begin() + 16, 0);
  for (int i = 0; i < 16; ++i) ids[16 + i] = 31999 - i;
  const std::vector<BlockHash> chain = HashChain(root, ids);
  ASSERT_EQ(chain.size(), 2u);
  EXPECT_EQ(chain[0].ToHex(), "4df9eb249888a760eb6516d47a9ed109");
  EXPECT_EQ(chain[1].ToHex(), "b1d4dbd8e53541b67aaf8353104dc949");

  parts.tenant_salt = "tenant-a";
  EXPECT_EQ(HashRoot(parts).ToHex(), "746aac1dc245addd476a558c0feb13d3");
  parts = identity.parts();
  parts.adapter_id = "tenant-a";
  EXPECT_EQ(HashRoot(parts).ToHex(), "70f60d89ee1ab79acf9f86ace57f78bb");
  parts = identity.parts();
  parts.length_salt = 4097;
  EXPECT_EQ(HashRoot(parts).ToHex(), "c0dbc77c3bde3d4d3f2f6acbaf121b3a");
}

TEST(BlockHashTest, PartsDoNotRunIntoEachOther) {
  const BlockHash ab_c = HashRoot({.weights_id = "ab", .numerics_class = "c"});
  const BlockHash a_bc = HashRoot({.weights_id = "a", .numerics_class = "bc"});
  EXPECT_NE(ab_c, a_bc);
}

TEST(BlockHashTest, ABlockDependsOnAllThatIsBeforeIt) {
  std::vector<int32_t> ids(48, 1);
  const BlockHash root = HashRoot({});
  const std::vector<BlockHash> before = HashChain(root, ids);
  ids[17] = 2;
  const std::vector<BlockHash> after = HashChain(root, ids);
  EXPECT_EQ(after[0], before[0]);
  EXPECT_NE(after[1], before[1]);
  EXPECT_NE(after[2], before[2]);
}

TEST(BlockHashTest, APartialBlockHasNoHash) {
  const std::vector<int32_t> ids(31, 5);
  EXPECT_EQ(HashChain(HashRoot({}), ids).size(), 1u);
  EXPECT_TRUE(HashChain(HashRoot({}), {}).empty());
}

TEST(BlockHashTest, BytesRoundTripAndOtherSizesAreRefused) {
  const BlockHash hash = HashRoot({});
  EXPECT_EQ(BlockHash::FromBytes(hash.ToBytes()), hash);
  EXPECT_EQ(BlockHash::FromBytes(std::string(15, 'x')), std::nullopt);
  EXPECT_EQ(BlockHash::FromBytes(std::string(17, 'x')), std::nullopt);
}

TEST(BlockHashTest, OnlyPromptsBeyondTheUnscaledContextAreSalted) {
  EXPECT_EQ(LengthSalt(/*prompt_length=*/100, /*unscaled_context=*/0), 0u);
  EXPECT_EQ(LengthSalt(100, 100), 0u);
  EXPECT_EQ(LengthSalt(101, 100), 101u);
}

}  // namespace
}  // namespace caravan::kv
