#include "worker/kv/block_pool.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::HasReason;
using ::testing::HasSubstr;

void ExpectCounts(const BlockPool& pool, int free, int leased, int cached) {
  EXPECT_EQ(pool.free_count(), free);
  EXPECT_EQ(pool.leased_count(), leased);
  EXPECT_EQ(pool.cached_count(), cached);
  EXPECT_EQ(free + leased + cached, pool.capacity());
  EXPECT_OK(pool.Audit());
}

TEST(BlockPoolTest, LeaseIsAllOrNothing) {
  BlockPool pool(/*capacity=*/4);
  EXPECT_THAT(pool.Lease(5),
              HasReason(Reason::kKvExhausted, HasSubstr("4 free KV blocks; "
                                                        "got 5")));
  ExpectCounts(pool, 4, 0, 0);
}

TEST(BlockPoolTest, LeaseOfNothingIsEmpty) {
  BlockPool pool(/*capacity=*/1);
  ASSERT_OK_AND_ASSIGN(const BlockLease lease, pool.Lease(0));
  EXPECT_EQ(lease.size(), 0);
}

TEST(BlockPoolTest, DestructionGivesBlocksBack) {
  BlockPool pool(/*capacity=*/4);
  {
    ASSERT_OK_AND_ASSIGN(const BlockLease lease, pool.Lease(3));
    ExpectCounts(pool, 1, 3, 0);
    EXPECT_EQ(
        std::set<BlockId>(lease.blocks().begin(), lease.blocks().end()).size(),
        3u);
  }
  ExpectCounts(pool, 4, 0, 0);
}

TEST(BlockPoolTest, TheWarmestBlockGoesOutFirst) {
  BlockPool pool(/*capacity=*/4);
  ASSERT_OK_AND_ASSIGN(BlockLease first, pool.Lease(2));
  const BlockId warm = first.blocks().front();
  first.Reset();
  ASSERT_OK_AND_ASSIGN(const BlockLease second, pool.Lease(1));
  EXPECT_EQ(second.blocks().front(), warm);
}

TEST(BlockPoolTest, MovingALeaseMovesItsReferences) {
  BlockPool pool(/*capacity=*/4);
  ASSERT_OK_AND_ASSIGN(BlockLease a, pool.Lease(2));
  ASSERT_OK_AND_ASSIGN(BlockLease b, pool.Lease(1));
  a.Append(std::move(b));
  EXPECT_EQ(a.size(), 3);
  const BlockLease c = std::move(a);
  ExpectCounts(pool, 1, 3, 0);
  BlockLease d;
  ASSERT_OK_AND_ASSIGN(d, pool.Lease(1));
  d = BlockLease();
  ExpectCounts(pool, 1, 3, 0);
}

TEST(BlockPoolTest, ASharedBlockIsFreeAfterItsLastReference) {
  BlockPool pool(/*capacity=*/2);
  ASSERT_OK_AND_ASSIGN(BlockLease first, pool.Lease(1));
  BlockLease second = pool.Share(first.blocks());
  EXPECT_EQ(pool.reference_count(first.blocks()[0]), 2);
  ExpectCounts(pool, 1, 1, 0);
  first.Reset();
  ExpectCounts(pool, 1, 1, 0);
  second.Reset();
  ExpectCounts(pool, 2, 0, 0);
}

TEST(BlockPoolTest, AKeptBlockIsCachedUntilItIsForgotten) {
  BlockPool pool(/*capacity=*/2);
  ASSERT_OK_AND_ASSIGN(BlockLease lease, pool.Lease(1));
  const BlockId block = lease.blocks()[0];
  pool.Keep(block);
  ExpectCounts(pool, 1, 1, 0);
  lease.Reset();
  ExpectCounts(pool, 1, 0, 1);
  EXPECT_TRUE(pool.cached(block));
  EXPECT_THAT(pool.Lease(2), HasReason(Reason::kKvExhausted));

  lease = pool.Share(std::vector<BlockId>{block});
  ExpectCounts(pool, 1, 1, 0);
  pool.Forget(block);
  ExpectCounts(pool, 1, 1, 0);
  lease.Reset();
  ExpectCounts(pool, 2, 0, 0);
}

TEST(BlockPoolTest, ForgettingACachedBlockFreesIt) {
  BlockPool pool(/*capacity=*/1);
  ASSERT_OK_AND_ASSIGN(BlockLease lease, pool.Lease(1));
  pool.Keep(lease.blocks()[0]);
  const BlockId block = lease.blocks()[0];
  lease.Reset();
  pool.Forget(block);
  ExpectCounts(pool, 1, 0, 0);
  EXPECT_EQ(pool.OldestCached(), std::nullopt);
}

TEST(BlockPoolTest, TheDeepestBlockOfTheOldestLeaseIsOldest) {
  BlockPool pool(/*capacity=*/4);
  ASSERT_OK_AND_ASSIGN(BlockLease a, pool.Lease(2));
  ASSERT_OK_AND_ASSIGN(BlockLease b, pool.Lease(2));
  const std::vector<BlockId> blocks_a = a.blocks();
  const std::vector<BlockId> blocks_b = b.blocks();
  for (const BlockId block : {0, 1, 2, 3}) pool.Keep(block);
  b.Reset();
  a.Reset();
  for (const BlockId expected :
       {blocks_b[1], blocks_b[0], blocks_a[1], blocks_a[0]}) {
    ASSERT_EQ(pool.OldestCached(), expected);
    pool.Forget(expected);
  }
}

TEST(BlockPoolTest, BooksBalanceThroughRandomUse) {
  constexpr uint32_t kSeed = 7;
  std::mt19937 random(kSeed);
  BlockPool pool(/*capacity=*/31);
  std::vector<BlockLease> leases;
  for (int step = 0; step < 5000; ++step) {
    switch (random() % 5) {
      case 0:
      case 1: {
        absl::StatusOr<BlockLease> lease =
            pool.Lease(static_cast<int32_t>(random() % 6));
        if (lease.ok()) leases.push_back(*std::move(lease));
        break;
      }
      case 2:
        if (!leases.empty()) {
          leases.push_back(
              pool.Share(leases[random() % leases.size()].blocks()));
        }
        break;
      case 3:
        if (!leases.empty()) {
          const BlockLease& lease = leases[random() % leases.size()];
          if (lease.size() > 0) pool.Keep(lease.blocks()[0]);
          std::swap(leases[random() % leases.size()], leases.back());
          leases.pop_back();
        }
        break;
      default:
        if (pool.OldestCached()) pool.Forget(*pool.OldestCached());
    }
    ASSERT_OK(pool.Audit()) << "seed " << kSeed << " step " << step;
    ASSERT_EQ(pool.free_count() + pool.leased_count() + pool.cached_count(),
              pool.capacity());
  }
}

}  // namespace
}  // namespace caravan::worker
