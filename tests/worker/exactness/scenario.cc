#include "tests/worker/exactness/scenario.h"

#include <array>
#include <random>
#include <set>
#include <utility>

#include "common/strings.h"

namespace caravan::worker {
namespace {

constexpr std::array<int, 8> kValues = {2, 4, 2, 2, 3, 3, 2, 2};
constexpr std::array<int32_t, 4> kChunks = {1, 7, 64, 512};
using Row = std::array<int, kValues.size()>;
// (cause, value, cause, value), the first cause before the second.
using Pair = std::array<int, 4>;

std::set<Pair> PairsOf(const Row& row) {
  std::set<Pair> pairs;
  for (int a = 0; a < static_cast<int>(row.size()); ++a) {
    for (int b = a + 1; b < static_cast<int>(row.size()); ++b) {
      pairs.insert({a, row[a], b, row[b]});
    }
  }
  return pairs;
}

std::set<Pair> AllPairs() {
  std::set<Pair> pairs;
  for (int a = 0; a < static_cast<int>(kValues.size()); ++a) {
    for (int b = a + 1; b < static_cast<int>(kValues.size()); ++b) {
      for (int i = 0; i < kValues[a]; ++i) {
        for (int j = 0; j < kValues[b]; ++j) pairs.insert({a, i, b, j});
      }
    }
  }
  return pairs;
}

Scenario FromRow(const Row& row) {
  return {.crowded = row[0] == 1,
          .chunk = kChunks[row[1]],
          .hit = row[2] == 1,
          .parked = row[3] == 1,
          .threads = 1 + row[4],
          .depth = 1 + row[5],
          .sampled = row[6] == 1,
          .choices = 1 + row[7]};
}

}  // namespace

std::string Scenario::ToString() const {
  return StrCat(crowded ? "among 31 others" : "alone", ", chunks of ", chunk,
                hit ? ", prefix hit" : "", parked ? ", parked" : "", ", ",
                threads, " threads, depth ", depth,
                sampled ? ", sampled" : ", greedy", ", n=", choices);
}

std::vector<Scenario> PairwiseScenarios(uint32_t seed) {
  std::mt19937 random(seed);
  std::set<Pair> left = AllPairs();
  std::vector<Scenario> scenarios;
  while (!left.empty()) {
    // The best of some random rows that have at least one pair that is left.
    const Pair must = *left.begin();
    Row best = {};
    size_t best_count = 0;
    for (int attempt = 0; attempt < 60; ++attempt) {
      Row row;
      for (size_t i = 0; i < row.size(); ++i) {
        row[i] = static_cast<int>(random() % kValues[i]);
      }
      row[must[0]] = must[1];
      row[must[2]] = must[3];
      size_t count = 0;
      for (const Pair& pair : PairsOf(row)) count += left.contains(pair);
      if (count > best_count) {
        best_count = count;
        best = row;
      }
    }
    for (const Pair& pair : PairsOf(best)) left.erase(pair);
    scenarios.push_back(FromRow(best));
  }
  return scenarios;
}

}  // namespace caravan::worker
