#include "services/cli/token_listing.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/strings.h"
#include "common/text/tokenizer.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"

namespace caravan::cli {
namespace {

using text::TokenId;
using text::TokenKind;

// "[begin,end)" of each token.
std::string Offsets(const std::vector<ListedToken>& tokens) {
  std::string out;
  for (const ListedToken& token : tokens) {
    StrAppend(&out, "[", token.begin, ",", token.end, ")");
  }
  return out;
}

text::Vocabulary Pieces() {
  text::Vocabulary vocabulary;
  vocabulary.tokens = {
      {"<unk>", TokenKind::kNormal},  {"<s>", TokenKind::kSpecial},
      {" hello", TokenKind::kNormal}, {" world", TokenKind::kNormal},
      {" ", TokenKind::kNormal},      {"\xE2", TokenKind::kByte},
      {"\x82", TokenKind::kByte},     {"\xAC", TokenKind::kByte}};
  return vocabulary;
}

std::string OffsetsOf(const std::string& text, std::vector<TokenId> ids) {
  return Offsets(ListTokens(text, ids, Pieces()));
}

TEST(TokenListingTest, WhatTheTextDoesNotHaveIsEmpty) {
  EXPECT_EQ(OffsetsOf("hello world", {1, 2, 3}), "[0,0)[0,5)[5,11)");
  EXPECT_EQ(OffsetsOf("\xE2\x82\xAC", {1, 4, 5, 6, 7}),
            "[0,0)[0,0)[0,1)[1,2)[2,3)");
  EXPECT_EQ(OffsetsOf("hello", {2, 99, -1}), "[0,5)[5,5)[5,5)");
}

TEST(TokenListingTest, AnUnknownTokenCoversWhatIsBeforeTheNext) {
  EXPECT_EQ(OffsetsOf("\xC3\xBC world", {0, 3}), "[0,2)[2,8)");
  EXPECT_EQ(OffsetsOf("xyz", {0}), "[0,3)");
}

TEST(TokenListingTest, DroppedSpacesBelongToNobody) {
  EXPECT_EQ(OffsetsOf("hello   world", {2, 3}), "[0,5)[7,13)");
}

TEST(TokenListingTest, ASpecialTokenInTheTextHasItsBytes) {
  EXPECT_EQ(OffsetsOf("<s> hello", {1, 2}), "[0,3)[3,9)");
}

TEST(TokenListingTest, PiecesStandOnOneLine) {
  EXPECT_EQ(Quoted("a\n\"\\\x01"), "\"a\\n\\\"\\\\\\x01\"");
  EXPECT_EQ(Quoted("\xE2\x82"), "\"\\xE2\\x82\"");
  EXPECT_EQ(Quoted("\xE2\x82\xAC"), "\"\xE2\x82\xAC\"");
}

// Byte-level tokens cover a text without a gap.
TEST(TokenListingTest, OffsetsOfAByteLevelModelAreSeamless) {
  const auto tokenizer = text::Tokenizer::LoadDirectory(
      testing::RepositoryPath("deploy/demo-model"));
  ASSERT_OK(tokenizer);
  const std::string text =
      "Na\xC3\xAFve  caf\xC3\xA9s,\n\t\xE6\x97\xA5\xE6\x9C\xAC";
  const auto ids = (*tokenizer)->Encode(text, {.add_special_tokens = false});
  ASSERT_OK(ids);
  size_t end = 0;
  for (const ListedToken& token :
       ListTokens(text, *ids, (*tokenizer)->vocabulary())) {
    EXPECT_EQ(token.begin, end);
    end = token.end;
  }
  EXPECT_EQ(end, text.size());
}

}  // namespace
}  // namespace caravan::cli
