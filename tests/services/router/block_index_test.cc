#include "services/router/block_index.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

#include "common/strings.h"
#include "tests/services/router/fleet_fixture.h"

namespace caravan::router {
namespace {

using Applied = BlockIndex::Applied;
using Hashes = std::vector<kv::BlockHash>;

KvChange Stored(int64_t number, const Hashes& hashes) {
  return {number, /*snapshot=*/false, hashes, {}};
}
KvChange Snapshot(int64_t number, const Hashes& hashes) {
  return {number, /*snapshot=*/true, hashes, {}};
}

TEST(BlockIndexTest, MatchesLeadingBlocksOnly) {
  BlockIndex index;
  const Hashes chain = TestChain(4);
  EXPECT_EQ(index.Apply("w1", Stored(1, {chain[0], chain[1], chain[3]})),
            Applied::kYes);
  EXPECT_EQ(index.MatchedBlocks("w1", chain), 2);
  EXPECT_EQ(index.MatchedBlocks("w2", chain), 0);
  EXPECT_EQ(index.MatchedBlocks("w1", TestChain(4, /*first_id=*/9)), 0);
}

TEST(BlockIndexTest, RemovedBlocksNoLongerMatch) {
  BlockIndex index;
  const Hashes chain = TestChain(3);
  index.Apply("w1", Stored(1, chain));
  EXPECT_EQ(index.Apply("w1", {2, false, {}, {chain[1], chain[1]}}),
            Applied::kYes);
  EXPECT_EQ(index.MatchedBlocks("w1", chain), 1);
  EXPECT_EQ(index.entry_count(), 2);
}

TEST(BlockIndexTest, AGapAsksOnceForASnapshotWhichHeals) {
  BlockIndex index;
  const Hashes chain = TestChain(3);
  index.Apply("w1", Stored(1, {chain[0]}));
  EXPECT_EQ(index.Apply("w1", Stored(3, {chain[2]})), Applied::kSnapshotWanted);
  EXPECT_EQ(index.LastSequenceNumber("w1"), 1);
  EXPECT_EQ(index.Apply("w1", Stored(4, {chain[2]})), Applied::kWaiting);
  EXPECT_EQ(index.Apply("w1", Snapshot(4, chain)), Applied::kYes);
  EXPECT_EQ(index.MatchedBlocks("w1", chain), 3);
  EXPECT_EQ(index.Apply("w1", Stored(5, {})), Applied::kYes);
}

TEST(BlockIndexTest, ARouterThatComesLateStartsFromASnapshot) {
  BlockIndex index;
  EXPECT_EQ(index.Apply("w1", Stored(57, TestChain(1))),
            Applied::kSnapshotWanted);
  EXPECT_EQ(index.LastSequenceNumber("w1"), 0);
}

TEST(BlockIndexTest, ARepeatedNumberChangesNothing) {
  BlockIndex index;
  const Hashes chain = TestChain(2);
  index.Apply("w1", Stored(1, {chain[0]}));
  EXPECT_EQ(index.Apply("w1", Stored(1, {chain[1]})), Applied::kRepeated);
  EXPECT_EQ(index.entry_count(), 1);
}

TEST(BlockIndexTest, ASnapshotReplacesEverything) {
  BlockIndex index;
  const Hashes before = TestChain(4);
  const Hashes after = TestChain(2, /*first_id=*/5);
  index.Apply("w1", Stored(1, before));
  index.Apply("w1", Snapshot(9, after));
  EXPECT_EQ(index.MatchedBlocks("w1", before), 0);
  EXPECT_EQ(index.MatchedBlocks("w1", after), 2);
  EXPECT_EQ(index.CountOf("w1"), 2);
}

TEST(BlockIndexTest, AFullIndexDropsAndCounts) {
  BlockIndex index(/*max_entries=*/3);
  index.Apply("w1", Stored(1, TestChain(2)));
  index.Apply("w2", Stored(1, TestChain(2)));
  EXPECT_EQ(index.entry_count(), 3);
  EXPECT_EQ(index.dropped_count(), 1);
  index.Forget("w1");
  EXPECT_EQ(index.entry_count(), 1);
  EXPECT_EQ(index.Apply("w2", Snapshot(2, TestChain(3))), Applied::kYes);
  EXPECT_EQ(index.entry_count(), 3);
}

TEST(BlockIndexTest, MatchFindsEveryHolderAtItsOwnDepth) {
  constexpr uint32_t kSeed = 5;
  std::mt19937 random(kSeed);
  BlockIndex index;
  const Hashes chain = TestChain(200);
  std::vector<int32_t> depths(40);
  for (size_t w = 0; w < depths.size(); ++w) {
    depths[w] = static_cast<int32_t>(random() % 3 == 0 ? 64 : random() % 201);
    const std::string id = StrCat("w", w);
    index.Apply(id,
                Stored(1, Hashes(chain.begin(), chain.begin() + depths[w])));
    index.Bind(id, static_cast<int32_t>(w));
  }
  index.Forget("w7");
  depths[7] = 0;
  std::vector<BlockMatch> matches;
  index.Match(chain, &matches);
  std::vector<int32_t> found(depths.size());
  for (const BlockMatch& match : matches) {
    EXPECT_EQ(found[static_cast<size_t>(match.tag)], 0) << "twice";
    found[static_cast<size_t>(match.tag)] = match.blocks;
  }
  EXPECT_EQ(found, depths);
}

TEST(BlockIndexTest, WhatWasForgottenIsClearedBitByBit) {
  BlockIndex index;
  index.Apply("w1", Stored(1, TestChain(500)));
  index.Apply("w2", Stored(1, TestChain(10)));
  index.Forget("w1");
  std::vector<BlockMatch> matches;
  index.Match(TestChain(500), &matches);
  ASSERT_EQ(matches.size(), 1u);
  EXPECT_EQ(matches[0].blocks, 10);
  EXPECT_EQ(index.block_count(), 500);
  for (int i = 0; i < HolderTable::kShardCount; ++i) index.Sweep();
  EXPECT_EQ(index.block_count(), 10);
}

TEST(HolderTableTest, AgreesWithAMapThroughAnyHistory) {
  constexpr uint32_t kSeed = 99;
  SCOPED_TRACE(::testing::Message() << "seed " << kSeed);
  std::mt19937 random(kSeed);
  HolderTable table;
  // Keys that share a shard and few home places, so that runs form and wrap.
  Hashes pool(60);
  for (size_t i = 0; i < pool.size(); ++i) {
    pool[i].bytes[0] = static_cast<uint8_t>(i % 7 + 250);
    pool[i].bytes[2] = static_cast<uint8_t>(i);
  }
  std::vector<std::set<HolderId>> expected(pool.size());
  for (int step = 0; step < 20000; ++step) {
    const size_t block = random() % pool.size();
    const auto holder = static_cast<HolderId>(random() % 40);
    if (random() % 1000 == 0) {
      std::vector<bool> gone(40);
      gone[holder] = true;
      table.Clear(0, gone);
      for (auto& holders : expected) holders.erase(holder);
    } else if (random() % 5 < (step / 4000 % 2 == 0 ? 3u : 2u)) {
      ASSERT_EQ(table.Add(pool[block], holder),
                expected[block].insert(holder).second);
    } else {
      ASSERT_EQ(table.Remove(pool[block], holder),
                expected[block].erase(holder) > 0);
    }
    const auto found = table.Find(pool[block]);
    ASSERT_EQ(std::set<HolderId>(found.begin(), found.end()), expected[block]);
    ASSERT_EQ(found.size(), expected[block].size());
  }
}

TEST(BlockIndexTest, EntriesStayCountedThroughAnyHistory) {
  constexpr uint32_t kSeed = 20240611;
  SCOPED_TRACE(::testing::Message() << "seed " << kSeed);
  std::mt19937 random(kSeed);
  BlockIndex index(/*max_entries=*/40);
  const Hashes pool = TestChain(30);
  std::vector<int64_t> numbers(3, 0);
  for (int step = 0; step < 5000; ++step) {
    const size_t worker = random() % numbers.size();
    const std::string id = StrCat("w", worker);
    KvChange change;
    change.sequence_number = numbers[worker] += 1 + (random() % 10 == 0);
    change.snapshot = random() % 7 == 0;
    for (int i = 0; i < 5; ++i) {
      change.stored.push_back(pool[random() % pool.size()]);
      change.removed.push_back(pool[random() % pool.size()]);
    }
    index.Apply(id, change);
    if (random() % 50 == 0) index.Forget(id);
    ASSERT_EQ(index.entry_count(),
              index.CountOf("w0") + index.CountOf("w1") + index.CountOf("w2"));
    ASSERT_LE(index.entry_count(), index.max_entries());
  }
}

}  // namespace
}  // namespace caravan::router
