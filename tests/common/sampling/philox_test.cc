#include "common/sampling/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace caravan::sampling {
namespace {

// Known answers that the authors publish with Random123 (kat_vectors).
TEST(PhiloxTest, GivesTheKnownAnswersOfRandom123) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                       {0xffffffff, 0xffffffff}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                       {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, TokenDrawIsTheFirstWordOfItsCounter) {
  const uint64_t seed = 0x299f31d0a4093822;
  EXPECT_EQ(TokenDraw(seed, 7, 3),
            Philox4x32({7, 3, 0, 0}, {0xa4093822, 0x299f31d0})[0]);
}

TEST(PhiloxTest, PositionsChoicesAndSeedsDrawDifferently) {
  std::set<uint32_t> draws;
  for (uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32}) {
    for (uint32_t choice = 0; choice < 4; ++choice) {
      for (uint32_t position = 0; position < 100; ++position) {
        draws.insert(TokenDraw(seed, position, choice));
      }
    }
  }
  EXPECT_EQ(draws.size(), 1200u);
}

}  // namespace
}  // namespace caravan::sampling
