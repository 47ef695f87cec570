// The maps from elements to storage, against the tables of the PTX ISA.
#include "worker/ops/cuda/kernels/fragments.h"

#include <gtest/gtest.h>

#include <set>

#include "worker/ops/cuda/geometry.h"
#include "worker/ops/cuda/kernels/operands.h"

namespace caravan::worker::cuda {
namespace {

// Half-word of register `i` (0 to 7) of `lane` in storage of 8 per lane.
int64_t HalfWord(int lane, int i) { return lane * 8 + i; }

TEST(FragmentsTest, WeightsLieAsOperandA) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 8; ++i) {  // "a_i" of the ISA's table
      const int row = i < 2 || (i >= 4 && i < 6) ? lane / 4 : lane / 4 + 8;
      const int column = lane % 4 * 2 + i % 2 + (i >= 4 ? 8 : 0);
      EXPECT_EQ(WeightOffset(row, column, 16), HalfWord(lane, i));
    }
  }
}

TEST(FragmentsTest, ActivationsLieAsTwoOperandsB) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 8; ++i) {  // "b_i" of the first, then of the second
      const int k = lane % 4 * 2 + i % 2 + (i % 4 >= 2 ? 8 : 0) + i / 4 * 16;
      EXPECT_EQ(ActivationOffset(lane / 4, k, 32), HalfWord(lane, i));
    }
  }
}

TEST(FragmentsTest, KeysAndValuesLieAsTwoOperandsB) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 8; ++i) {
      const int k = lane % 4 * 2 + i % 2 + (i % 4 >= 2 ? 8 : 0);
      const int column = lane / 4 + i / 4 * 8;
      // Scores sum over dimensions, outputs over slots.
      EXPECT_EQ(KeyOffset(/*slot=*/column, /*dim=*/k), HalfWord(lane, i));
      EXPECT_EQ(ValueOffset(/*slot=*/k, /*dim=*/column), HalfWord(lane, i));
    }
  }
}

TEST(FragmentsTest, EveryElementHasAPlaceOfItsOwn) {
  constexpr int kRows = 48;
  constexpr int kDepth = 96;
  std::set<int64_t> weights;
  std::set<int64_t> activations;
  for (int row = 0; row < kRows; ++row) {
    for (int k = 0; k < kDepth; ++k) {
      weights.insert(WeightOffset(row, k, kDepth));
      activations.insert(ActivationOffset(row, k, kDepth));
    }
  }
  for (const auto& places : {weights, activations}) {
    EXPECT_EQ(places.size(), size_t{kRows * kDepth});
    EXPECT_EQ(*places.begin(), 0);
    EXPECT_EQ(*places.rbegin(), kRows * kDepth - 1);
  }
}

TEST(FragmentsTest, InterleavedRowsPairGateWithUpInOneLane) {
  for (int row = 0; row < 40; ++row) {
    const int64_t gate = InterleavedRow(row, 0);
    EXPECT_EQ(InterleavedRow(row, 1), gate + 8);
    EXPECT_EQ(gate / 16, row / 8);
    EXPECT_LT(gate % 16, 8);
  }
}

TEST(FragmentsTest, SegmentsArePaddedToWholeSteps) {
  for (const int64_t unit : {6, 32, 40, 100, 128}) {
    for (const int64_t k : {int64_t{5}, unit, 3 * unit, 8 * unit, 11 * unit}) {
      const SegmentTable table = EightSegments(k, unit);
      EXPECT_EQ(table.columns(), k);
      int64_t next = 0;
      for (int64_t p = 0; p < table.depth(); ++p) {
        if (table.Unpad(p) < 0) continue;
        EXPECT_EQ(table.Unpad(p), next);
        EXPECT_EQ(table.Pad(next), p);
        ++next;
      }
      EXPECT_EQ(next, k);
      for (int s = 0; s <= kMaxSegments; ++s) {
        EXPECT_EQ(table.padded[s] % kStepDepth, 0);
      }
    }
  }
}

TEST(FragmentsTest, CachesOfLargePoolsNeed64Bits) {
  Cache cache;
  cache.kv_heads = 8;
  cache.head_dim = 128;
  cache.block_count = 40000;
  EXPECT_EQ(cache.KeyBase(79, 39999, 7),
            ((int64_t{79} * 40000 + 39999) * 8 + 7) * 2 * 16 * 128);
  EXPECT_EQ(cache.ValueBase(79, 39999, 7) - cache.KeyBase(79, 39999, 7),
            16 * 128);
}

}  // namespace
}  // namespace caravan::worker::cuda
