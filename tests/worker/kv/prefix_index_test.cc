#include "worker/kv/prefix_index.h"

#include <gtest/gtest.h>

#include <numeric>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAreArray;

constexpr int kTokens = kv::kBlockTokens;

std::vector<int32_t> Ids(int count, int first = 0) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

class PrefixIndexTest : public ::testing::Test {
 protected:
  // Leases and enters the full blocks of `ids`.
  BlockLease Enter(const std::vector<int32_t>& ids) {
    const auto hashes = kv::HashChain(root_, ids);
    BlockLease lease = *pool_.Lease(static_cast<int32_t>(hashes.size()));
    for (size_t i = 0; i < hashes.size(); ++i) {
      index_.Insert(i == 0 ? root_ : hashes[i - 1], hashes[i],
                    std::span(ids).subspan(i * kTokens), lease.blocks()[i]);
    }
    return lease;
  }
  std::vector<BlockId> Find(const std::vector<int32_t>& ids) {
    return index_.Find(root_, kv::HashChain(root_, ids), ids);
  }

  const kv::BlockHash root_ = kv::HashRoot({.weights_id = "w"});
  BlockPool pool_{8};
  PrefixIndex index_{&pool_};
};

TEST_F(PrefixIndexTest, FindsTheLongestKnownPrefix) {
  const BlockLease lease = Enter(Ids(3 * kTokens));
  EXPECT_EQ(Find(Ids(3 * kTokens)), lease.blocks());
  EXPECT_EQ(Find(Ids(5 * kTokens)), lease.blocks());
  std::vector<int32_t> other = Ids(3 * kTokens);
  other[kTokens] = 999;
  EXPECT_THAT(Find(other), ElementsAre(lease.blocks()[0]));
  EXPECT_THAT(Find(Ids(2 * kTokens, 5)), IsEmpty());
  EXPECT_THAT(Find(Ids(kTokens - 1)), IsEmpty());
}

TEST_F(PrefixIndexTest, AHashWithOtherIdsIsNotTrusted) {
  BlockLease lease = *pool_.Lease(1);
  const std::vector<int32_t> ids = Ids(kTokens);
  const kv::BlockHash hash = kv::HashBlock(root_, ids);
  index_.Insert(root_, hash, Ids(kTokens, 100), lease.blocks()[0]);
  EXPECT_THAT(Find(ids), IsEmpty());
}

TEST_F(PrefixIndexTest, AHashWithAnotherParentIsNotTrusted) {
  BlockLease lease = *pool_.Lease(1);
  const std::vector<int32_t> ids = Ids(kTokens);
  const kv::BlockHash other = kv::HashRoot({.weights_id = "other"});
  index_.Insert(other, kv::HashBlock(root_, ids), ids, lease.blocks()[0]);
  EXPECT_THAT(Find(ids), IsEmpty());
}

TEST_F(PrefixIndexTest, TheFirstBlockOfAHashStays) {
  const BlockLease first = Enter(Ids(kTokens));
  const BlockLease second = Enter(Ids(kTokens));
  EXPECT_EQ(Find(Ids(kTokens)), first.blocks());
  EXPECT_FALSE(pool_.kept(second.blocks()[0]));
  EXPECT_EQ(index_.size(), 1);
  EXPECT_OK(index_.Audit());
}

TEST_F(PrefixIndexTest, EvictsOnlyWhatNobodyLeases) {
  BlockLease held = Enter(Ids(2 * kTokens));
  BlockLease gone = Enter(Ids(2 * kTokens, 500));
  const std::vector<BlockId> blocks = gone.blocks();
  EXPECT_FALSE(index_.EvictOldest());
  gone.Reset();
  EXPECT_EQ(pool_.cached_count(), 2);
  EXPECT_TRUE(index_.EvictOldest());
  EXPECT_THAT(Find(Ids(2 * kTokens, 500)), ElementsAre(blocks[0]));
  EXPECT_TRUE(index_.EvictOldest());
  EXPECT_FALSE(index_.EvictOldest());
  EXPECT_EQ(Find(Ids(2 * kTokens)), held.blocks());
  EXPECT_EQ(pool_.free_count(), 6);
  EXPECT_OK(index_.Audit());
  EXPECT_OK(pool_.Audit());
}

TEST_F(PrefixIndexTest, UseMakesAPrefixYoung) {
  Enter(Ids(kTokens)).Reset();
  Enter(Ids(kTokens, 500)).Reset();
  pool_.Share(Find(Ids(kTokens))).Reset();
  EXPECT_TRUE(index_.EvictOldest());
  EXPECT_EQ(Find(Ids(kTokens)).size(), 1u);
  EXPECT_THAT(Find(Ids(kTokens, 500)), IsEmpty());
}

TEST_F(PrefixIndexTest, ChangesAreListedOnceInOrder) {
  const auto hashes = kv::HashChain(root_, Ids(2 * kTokens));
  Enter(Ids(2 * kTokens)).Reset();
  PrefixIndexChanges changes = index_.TakeChanges();
  EXPECT_EQ(changes.stored, hashes);
  EXPECT_THAT(changes.removed, IsEmpty());
  EXPECT_THAT(index_.Hashes(), UnorderedElementsAreArray(hashes));

  index_.EvictOldest();
  changes = index_.TakeChanges();
  EXPECT_THAT(changes.stored, IsEmpty());
  EXPECT_THAT(changes.removed, ElementsAre(hashes[1]));
  EXPECT_THAT(index_.TakeChanges().removed, IsEmpty());
}

TEST_F(PrefixIndexTest, WhatCameAndWentIsNoChange) {
  const BlockLease held = Enter(Ids(kTokens));
  index_.TakeChanges();
  index_.Forget(held.blocks()[0]);
  const BlockLease again = Enter(Ids(kTokens));
  Enter(Ids(kTokens, 500)).Reset();
  index_.EvictOldest();
  const PrefixIndexChanges changes = index_.TakeChanges();
  EXPECT_THAT(changes.stored, IsEmpty());
  EXPECT_THAT(changes.removed, IsEmpty());
  EXPECT_EQ(Find(Ids(kTokens)), again.blocks());
}

}  // namespace
}  // namespace caravan::worker
