#include "common/text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/common/text/generated_text.h"
#include "tests/support/status_matchers.h"

namespace caravan::text {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Split(const PreTokenizer& splitter,
                               std::string_view text) {
  std::vector<std::string_view> pieces;
  EXPECT_OK(splitter.Split(text, &pieces));
  return {pieces.begin(), pieces.end()};
}

std::vector<std::string> SplitLlama3(std::string_view text) {
  auto splitter = PreTokenizer::Create(std::string(kLlama3Pattern));
  EXPECT_OK(splitter);
  return Split(**splitter, text);
}

TEST(PreTokenizerTest, SplitsAsLlama3) {
  EXPECT_THAT(
      SplitLlama3("I'LL pay 12345!\n\n  now"),
      ElementsAre("I", "'LL", " pay", " ", "123", "45", "!\n\n", " ", " now"));
  EXPECT_THAT(SplitLlama3("a  \n b"), ElementsAre("a", "  \n", " b"));
  EXPECT_THAT(SplitLlama3("\tx\t1"), ElementsAre("\tx", "\t", "1"));
  EXPECT_THAT(SplitLlama3("it'\xC5\xBFx"), ElementsAre("it", "'\xC5\xBF", "x"));
}

// The scanners are written by hand; PCRE2 reads the patterns themselves.
TEST(PreTokenizerTest, ScannersEqualTheirPatterns) {
  std::mt19937_64 random(4);
  for (const std::string_view pattern : {kLlama3Pattern, kGpt2Pattern}) {
    auto scanner = PreTokenizer::Create(std::string(pattern));
    auto pcre = CreatePcrePreTokenizer(std::string(pattern));
    ASSERT_OK(scanner);
    ASSERT_OK(pcre);
    for (int i = 0; i < 1000; ++i) {
      std::string text = GenerateText(&random, 80);
      // Categories of code points that are new in some version of Unicode
      // differ between the two tables.
      std::erase_if(text, [](char c) { return (c & 0x80) != 0; });
      EXPECT_EQ(Split(**scanner, text), Split(**pcre, text)) << text;
    }
  }
}

TEST(PreTokenizerTest, PatternsAsDataKeepWhatTheyDoNotMatch) {
  auto digits = PreTokenizer::Create(R"(\p{N})");
  ASSERT_OK(digits);
  EXPECT_THAT(Split(**digits, "a12b"), ElementsAre("a", "1", "2", "b"));
  auto empty = PreTokenizer::Create("x*");
  ASSERT_OK(empty);
  EXPECT_THAT(Split(**empty, "axxb"), ElementsAre("a", "xx", "b"));
}

TEST(PreTokenizerTest, BrokenPatternsAreRefused) {
  EXPECT_THAT(PreTokenizer::Create("(a"),
              testing::HasReason(Reason::kModelFileInvalid));
  EXPECT_THAT(PreTokenizer::Create(std::string(100'000, 'a')),
              testing::HasReason(Reason::kModelFileInvalid));
}

TEST(PreTokenizerTest, APatternThatBacktracksWithoutEndGivesUp) {
  auto evil = PreTokenizer::Create("(a+)+[cd]$");
  ASSERT_OK(evil);
  std::vector<std::string_view> pieces;
  const std::string text = std::string(64, 'a') + "!";
  EXPECT_FALSE((*evil)->Split(text, &pieces).ok());
}

}  // namespace
}  // namespace caravan::text
