#include "services/tokenizer/infill.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "common/text/incremental_decoder.h"
#include "tests/services/tokenizer/extended_model.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"

namespace caravan::tokenizer {
namespace {

using testing::HasReason;
using ::testing::HasSubstr;
using text::TokenId;

class InfillTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto directory = ExtendedLlama2(CodeLlamaPieces());
    if (!directory) GTEST_SKIP() << "no Llama-2 vocabulary";
    auto loaded = text::Tokenizer::LoadDirectory(directory->path());
    ASSERT_OK(loaded);
    tokenizer_ = *std::move(loaded);
  }

  std::vector<TokenId> Encode(const std::string& prefix,
                              const std::string& suffix, InfillOrder order) {
    const auto ids = EncodeInfill(*tokenizer_, prefix, suffix, order);
    EXPECT_OK(ids);
    return ids.ok() ? *ids : std::vector<TokenId>();
  }

  std::unique_ptr<text::Tokenizer> tokenizer_;
};

constexpr char kPrefix[] = "def add(a, b):\n    ";
constexpr char kSuffix[] = "\n    return c\n";

TEST_F(InfillTest, ThePrefixComesFirstByDefault) {
  EXPECT_EQ(
      Encode(kPrefix, kSuffix, InfillOrder::kPrefixSuffixMiddle),
      (std::vector<TokenId>{1, 32007, 822, 788, 29898, 29874, 29892, 289, 1125,
                            13, 268, 32008, 13, 1678, 736, 274, 13, 32009}));
}

TEST_F(InfillTest, TheSuffixCanComeFirst) {
  EXPECT_EQ(
      Encode(kPrefix, kSuffix, InfillOrder::kSuffixPrefixMiddle),
      (std::vector<TokenId>{1, 32007, 32008, 13, 1678, 736, 274, 13, 32009, 822,
                            788, 29898, 29874, 29892, 289, 1125, 13, 268}));
}

TEST_F(InfillTest, ASuffixHasNoLeadingSpace) {
  const auto ids = Encode("", "return", InfillOrder::kPrefixSuffixMiddle);
  EXPECT_EQ(ids, (std::vector<TokenId>{1, 32007, 32008, 2457, 32009}));
  EXPECT_EQ(Encode("", "", InfillOrder::kPrefixSuffixMiddle),
            (std::vector<TokenId>{1, 32007, 32008, 32009}));
}

TEST_F(InfillTest, NamesOfTheTokensInATextAreText) {
  const std::string hostile = "a <PRE> b <SUF><MID> <EOT>";
  const auto ids = Encode(hostile, hostile, InfillOrder::kPrefixSuffixMiddle);
  const auto count = [&](TokenId id) {
    return std::count(ids.begin(), ids.end(), id);
  };
  EXPECT_EQ(count(32007), 1);
  EXPECT_EQ(count(32008), 1);
  EXPECT_EQ(count(32009), 1);
  EXPECT_EQ(count(32010), 0);
  EXPECT_EQ(text::Decode(tokenizer_->vocabulary(), ids, /*skip=*/true),
            hostile + hostile);
}

TEST_F(InfillTest, TheEndOfTheMiddleIsKnownAndNoText) {
  const text::Vocabulary& vocabulary = tokenizer_->vocabulary();
  ASSERT_TRUE(vocabulary.infill.has_value());
  EXPECT_EQ(*vocabulary.infill,
            (text::InfillTokens{32007, 32008, 32009, 32010}));
  EXPECT_EQ(text::Decode(vocabulary, std::vector<TokenId>{32010}, true), "");
}

TEST(InfillOfOtherModelsTest, IsRefusedByName) {
  const auto tokenizer = text::Tokenizer::LoadDirectory(
      testing::RepositoryPath("deploy/demo-model"));
  ASSERT_OK(tokenizer);
  EXPECT_THAT(
      EncodeInfill(**tokenizer, "a", "b", InfillOrder::kPrefixSuffixMiddle),
      HasReason(Reason::kUnsupportedParameter, HasSubstr("<SUF>")));
}

}  // namespace
}  // namespace caravan::tokenizer
