// Text to ids and back, and the known exceptions.
#include "tests/property/round_trip.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "common/text/bpe_tokenizer.h"
#include "common/text/model_files.h"
#include "common/text/utf8.h"
#include "tests/common/text/small_models.h"
#include "tests/property/tokenizers.h"
#include "tests/support/status_matchers.h"

namespace caravan::text {
namespace {

constexpr int kCases = 20'000;

std::unique_ptr<Tokenizer> Made(const SentencePieceFile& file) {
  auto model = ParseSentencePiece(file.Serialize(), "test");
  EXPECT_OK(model);
  if (!model.ok()) return nullptr;
  auto tokenizer = BpeTokenizer::Create(*std::move(model));
  EXPECT_OK(tokenizer);
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

TEST(RoundTripTest, DecodingTheIdsOfAnyValidTextGivesTheText) {
  ExpectRoundTrips(kCases);
}

TEST(RoundTripTest, EverySplitGivesTheTextOfDecodingAtOnce) {
  ExpectEverySplitDecodesAlike(kCases);
}

TEST(RoundTripTest, EveryCharacterComesBack) {
  for (const auto& tokenizer : AllTokenizers()) {
    std::string text;
    for (uint32_t c = 0; c < 0x110000; ++c) {
      if ((c < 0xD800 || c >= 0xE000) && c != 0x2581) AppendUtf8(c, &text);
      if (c % 0x1000 != 0xFFF) continue;
      ASSERT_EQ(RoundTrip(*tokenizer, text), text) << "up to " << c;
      text.clear();
    }
  }
}

// The first of SentencePiece's known exceptions: its own sign for a space.
TEST(RoundTripTest, TheVisibleSpaceComesBackAsASpace) {
  SentencePieceFile file;
  file.byte_fallback = true;
  file.AddStandardPieces();
  file.Add(kVisibleSpace, -1);
  EXPECT_EQ(RoundTrip(*Made(file), "a\u2581b \u2581"), "a b  ");
  EXPECT_EQ(RoundTrip(*Made(file), "  a "), "  a ");
}

// The second: models that normalize white space.
TEST(RoundTripTest, ExtraSpacesGoWhereTheModelRemovesThem) {
  SentencePieceFile file;
  file.byte_fallback = true;
  file.remove_extra_whitespaces = true;
  file.AddStandardPieces();
  file.Add(kVisibleSpace, -1);
  EXPECT_EQ(RoundTrip(*Made(file), "  a   b "), "a b");
  EXPECT_EQ(RoundTrip(*Made(file), "a\n\tb"), "a\n\tb");
}

// The third: what a model without byte fallback does not know.
TEST(RoundTripTest, UnknownCharactersAreLostWithoutByteFallback) {
  SentencePieceFile file;
  file.Add("<unk>", 0, /*type=*/2);
  file.Add(kVisibleSpace, -1);
  file.Add("a", -2);
  EXPECT_EQ(RoundTrip(*Made(file), "a a"), "a a");
  EXPECT_NE(RoundTrip(*Made(file), "ab"), "ab");
}

// The fourth: without the dummy prefix nothing says whether the first space
// was the text's own.
TEST(RoundTripTest, ALeadingSpaceStaysWithoutADummyPrefix) {
  SentencePieceFile file;
  file.byte_fallback = true;
  file.add_dummy_prefix = false;
  file.AddStandardPieces();
  file.Add(kVisibleSpace, -1);
  EXPECT_EQ(RoundTrip(*Made(file), "a b"), "a b");
  EXPECT_EQ(RoundTrip(*Made(file), " a"), " a");
}

}  // namespace
}  // namespace caravan::text
