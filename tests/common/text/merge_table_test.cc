#include "common/text/merge_table.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan::text {
namespace {

using ::testing::ElementsAre;

// The definition, without a queue: look for the best pair, merge it, repeat.
std::vector<TokenId> ApplyNaively(const MergeTable& table,
                                  std::vector<TokenId> symbols) {
  while (true) {
    const MergeTable::Merge* best = nullptr;
    size_t at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto* merge = table.Find(symbols[i], symbols[i + 1]);
      if (merge != nullptr && (best == nullptr || merge->rank < best->rank)) {
        best = merge;
        at = i;
      }
    }
    if (best == nullptr) return symbols;
    symbols[at] = best->result;
    symbols.erase(symbols.begin() + static_cast<int64_t>(at) + 1);
  }
}

void Apply(const MergeTable& table, std::vector<TokenId>* symbols,
           MergeTable::Way way = MergeTable::Way::kBySize) {
  MergeScratch scratch;
  size_t count = 0;
  table.Apply(*symbols, &scratch, &count, way);
  symbols->resize(count);
}

TEST(MergeTableTest, TakesTheLeastRankThenTheLeftmost) {
  const MergeTable table({{0, 1, 2, 5}, {1, 0, 3, 4}, {0, 0, 4, 5}});
  std::vector<TokenId> symbols = {0, 1, 0, 1};
  Apply(table, &symbols);
  EXPECT_THAT(symbols, ElementsAre(0, 3, 1));
  symbols = {0, 0, 0, 1};
  Apply(table, &symbols);
  EXPECT_THAT(symbols, ElementsAre(4, 2));
}

TEST(MergeTableTest, NegativeSymbolsNeverMerge) {
  const MergeTable table({{0, 1, 2, 0}});
  std::vector<TokenId> symbols = {-2, 1, 0, -3, 0, 1};
  Apply(table, &symbols);
  EXPECT_THAT(symbols, ElementsAre(-2, 1, 0, -3, 2));
}

TEST(MergeTableTest, FindsPairsOfSmallAndOfLargeSymbols) {
  const MergeTable table(
      {{255, 255, 7, 1}, {255, 256, 8, 2}, {9, 70000, 9, 3}});
  EXPECT_EQ(table.Find(255, 255)->result, 7);
  EXPECT_EQ(table.Find(255, 256)->result, 8);
  EXPECT_EQ(table.Find(9, 70000)->rank, 3u);
  EXPECT_EQ(table.Find(256, 255), nullptr);
  EXPECT_EQ(table.Find(70000, 9), nullptr);
  EXPECT_EQ(table.Find(0, 0), nullptr);
}

TEST(MergeTableTest, EqualsTheDefinitionOnRandomTables) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 300; ++round) {
    std::vector<MergePair> pairs;
    const int count = 1 + static_cast<int>(random() % 20);
    for (int i = 0; i < count; ++i) {
      const auto limit = static_cast<uint64_t>(4 + i);
      pairs.push_back({static_cast<TokenId>(random() % limit),
                       static_cast<TokenId>(random() % limit), 4 + i,
                       static_cast<uint32_t>(random() % 8)});
    }
    const MergeTable table(pairs);
    for (const size_t most : {MergeTable::kMostShort, size_t{150}}) {
      std::vector<TokenId> symbols(random() % (most + 1));
      for (TokenId& s : symbols) s = static_cast<TokenId>(random() % 4);
      const std::vector<TokenId> expected = ApplyNaively(table, symbols);
      for (const auto way : {MergeTable::Way::kShort, MergeTable::Way::kHeap,
                             MergeTable::Way::kBuckets}) {
        if (way == MergeTable::Way::kShort && most > MergeTable::kMostShort) {
          continue;
        }
        std::vector<TokenId> merged = symbols;
        Apply(table, &merged, way);
        EXPECT_EQ(merged, expected) << static_cast<int>(way);
      }
    }
  }
}

TEST(PairsOfPiecesTest, CutsEveryPieceEverywhere) {
  const absl::flat_hash_map<std::string, TokenId> symbols = {
      {"a", 0}, {"b", 1}, {"ab", 2}, {"aba", 3}, {"ba", 4}};
  const auto pairs = PairsOfPieces({{3, "aba", 1}, {2, "ab", 0}}, symbols,
                                   /*bytes_are_symbols=*/true);
  ASSERT_OK(pairs);
  ASSERT_EQ(pairs->size(), 3u);
  EXPECT_EQ((*pairs)[0].result, 2);
  EXPECT_EQ((*pairs)[1].left, 0);
  EXPECT_EQ((*pairs)[1].right, 4);
  EXPECT_EQ((*pairs)[2].left, 2);
}

}  // namespace
}  // namespace caravan::text
