#include "gateway/stream/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace caravan::gateway {
namespace {

TEST(StopMatcherTest, FindsAStopTextAcrossPieces) {
  const StopTexts texts({"END"});
  StopMatcher matcher(texts);
  EXPECT_FALSE(matcher.Feed("abcE", true));
  EXPECT_EQ(matcher.held_bytes(), 1u);
  EXPECT_FALSE(matcher.Feed("N", true));
  EXPECT_EQ(matcher.held_bytes(), 2u);
  const auto match = matcher.Feed("Dxyz", true);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->text, 0u);
  EXPECT_EQ(match->end, 1u);
}

TEST(StopMatcherTest, HoldsNothingThatCannotBeginAStopText) {
  const StopTexts texts({"abc", "bd"});
  StopMatcher matcher(texts);
  EXPECT_FALSE(matcher.Feed("ab", true));
  EXPECT_EQ(matcher.held_bytes(), 2u);
  EXPECT_FALSE(matcher.Feed("x", true));
  EXPECT_EQ(matcher.held_bytes(), 0u);
}

TEST(StopMatcherTest, OfSeveralThatEndTogetherTheLongestCounts) {
  const StopTexts texts({"c", "bc", "abc"});
  StopMatcher matcher(texts);
  const auto match = matcher.Feed("abc", true);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->text, 2u);
}

TEST(StopMatcherTest, FallsBackInsideARepeatedPrefix) {
  const StopTexts texts({"aab"});
  StopMatcher matcher(texts);
  const auto match = matcher.Feed("aaab", true);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->end, 4u);
}

TEST(StopMatcherTest, PassesOverMatchesThatDoNotCountYet) {
  const StopTexts texts({"aa"});
  StopMatcher matcher(texts);
  EXPECT_FALSE(matcher.Feed("aa", false));
  const auto match = matcher.Feed("a", true);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->end, 1u);
}

// The first end of any stop text in `text`, found the slow way.
std::string::size_type FirstEnd(const std::string& text,
                                const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    for (const std::string& stop : stops) {
      if (end >= stop.size() &&
          text.compare(end - stop.size(), stop.size(), stop) == 0) {
        return end;
      }
    }
  }
  return std::string::npos;
}

TEST(StopMatcherTest, AgreesWithASlowSearchOnRandomTexts) {
  constexpr int kSeed = 20241123;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  const auto word = [&random](int size) {
    std::string text;
    for (int i = 0; i < size; ++i) text += random() % 2 ? 'a' : 'b';
    return text;
  };
  for (int round = 0; round < 500; ++round) {
    const std::vector<std::string> stops = {word(1 + random() % 6),
                                            word(1 + random() % 6)};
    const std::string text = word(24);
    const StopTexts texts(stops);
    StopMatcher matcher(texts);
    std::string::size_type found = std::string::npos;
    for (size_t at = 0; at < text.size() && found == std::string::npos;) {
      const size_t size = 1 + random() % 3;
      const std::string piece = text.substr(at, size);
      if (const auto match = matcher.Feed(piece, true)) found = at + match->end;
      at += piece.size();
    }
    EXPECT_EQ(found, FirstEnd(text, stops)) << text;
  }
}

}  // namespace
}  // namespace caravan::gateway
