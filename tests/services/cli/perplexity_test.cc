#include "services/cli/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan::cli {
namespace {

using ::caravan::testing::HasReason;
using ::testing::ElementsAre;
using ::testing::SizeIs;

std::vector<int32_t> Counting(int32_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

TEST(ScoreWindowsTest, WindowsDoNotOverlapAndBeginWithBos) {
  ScoreWindowOptions options;
  options.window = 4;
  options.score_from = 2;
  options.bos = 99;
  ASSERT_OK_AND_ASSIGN(const auto windows,
                       MakeScoreWindows(Counting(10), options));
  ASSERT_THAT(windows, SizeIs(2));
  EXPECT_THAT(windows[0].ids, ElementsAre(99, 1, 2, 3));
  EXPECT_THAT(windows[1].ids, ElementsAre(99, 5, 6, 7));
  EXPECT_EQ(windows[1].score_from, 2);
}

TEST(ScoreWindowsTest, WholeIsOneWindowScoredFromTheSecondToken) {
  ScoreWindowOptions options;
  options.whole = true;
  ASSERT_OK_AND_ASSIGN(const auto windows,
                       MakeScoreWindows(Counting(10), options));
  ASSERT_THAT(windows, SizeIs(1));
  EXPECT_THAT(windows[0].ids, SizeIs(10));
  EXPECT_EQ(windows[0].score_from, 1);
}

TEST(ScoreWindowsTest, RefusesWindowsThatScoreNothing) {
  ScoreWindowOptions options;
  options.window = 8;
  options.score_from = 8;
  EXPECT_THAT(MakeScoreWindows(Counting(10), options),
              HasReason(Reason::kInvalidField));
  options.score_from = 0;
  EXPECT_THAT(MakeScoreWindows(Counting(10), options),
              HasReason(Reason::kInvalidField));
  options.score_from = 4;
  EXPECT_THAT(MakeScoreWindows(Counting(7), options),
              HasReason(Reason::kInvalidField));
  EXPECT_THAT(MakeScoreWindows({}, options), HasReason(Reason::kInvalidField));
}

TEST(PerplexitySumTest, IsTheExponentialOfTheMean) {
  PerplexitySum sum;
  sum.Add(std::log(0.5));
  sum.Add(std::log(0.125));
  EXPECT_EQ(sum.count(), 2);
  EXPECT_NEAR(sum.perplexity(), 4, 1e-12);
  EXPECT_GT(sum.standard_error(), 0);
}

TEST(TokenIdsTest, ReadsListsInBothForms) {
  ASSERT_OK_AND_ASSIGN(const auto json, ParseTokenIds("[1, 2,\n3]"));
  EXPECT_THAT(json, ElementsAre(1, 2, 3));
  ASSERT_OK_AND_ASSIGN(const auto plain, ParseTokenIds("4 5\t6\n"));
  EXPECT_THAT(plain, ElementsAre(4, 5, 6));
  EXPECT_THAT(ParseTokenIds("1 x"), HasReason(Reason::kInvalidField));
  EXPECT_THAT(ParseTokenIds("-1"), HasReason(Reason::kInvalidField));
  EXPECT_THAT(ParseTokenIds("99999999999"), HasReason(Reason::kInvalidField));
}

}  // namespace
}  // namespace caravan::cli
