#include "services/cli/count_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace caravan::cli {
namespace {

using caravan::testing::HasReason;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(CountListTest, TakesCountsAndRanges) {
  ASSERT_OK_AND_ASSIGN(const auto mixed,
                       ParseCountList("--batches", "1,3-5,9"));
  EXPECT_THAT(mixed, ElementsAre(1, 3, 4, 5, 9));
  ASSERT_OK_AND_ASSIGN(const auto one, ParseCountList("--batches", "7-7"));
  EXPECT_THAT(one, ElementsAre(7));
  ASSERT_OK_AND_ASSIGN(const auto none, ParseCountList("--batches", ""));
  EXPECT_THAT(none, IsEmpty());
}

TEST(CountListTest, RefusesWhatIsNoCount) {
  for (const char* text : {"0", "a", "5-3", "1,,2", "1,", "-3", "3-", "1000001",
                           "1-2-3", " 1", "1-2000"}) {
    EXPECT_THAT(ParseCountList("--batches", text).status(),
                HasReason(Reason::kInvalidField))
        << text;
  }
}

}  // namespace
}  // namespace caravan::cli
