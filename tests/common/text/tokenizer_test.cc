#include "common/text/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/json.h"
#include "common/text/incremental_decoder.h"
#include "common/text/utf8.h"
#include "tests/common/text/generated_text.h"
#include "tests/common/text/model_directory.h"
#include "tests/common/text/small_models.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"

namespace caravan::text {
namespace {

using ::caravan::testing::HasReason;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::unique_ptr<Tokenizer> Load(const std::string& directory) {
  auto loaded = Tokenizer::LoadDirectory(directory);
  EXPECT_OK(loaded);
  return loaded.ok() ? *std::move(loaded) : nullptr;
}

std::unique_ptr<Tokenizer> LoadFile(const std::string& name,
                                    const std::string& content) {
  const ModelDirectory directory;
  directory.Write(name, content);
  return Load(directory.path());
}

std::vector<TokenId> Encode(const Tokenizer& tokenizer, std::string_view text,
                            const EncodeOptions& options = {
                                .add_special_tokens = false}) {
  const auto ids = tokenizer.Encode(text, options);
  EXPECT_OK(ids);
  return ids.ok() ? *ids : std::vector<TokenId>();
}

class DemoTokenizer : public ::testing::Test {
 protected:
  std::unique_ptr<Tokenizer> tokenizer_ =
      Load(testing::RepositoryPath("deploy/demo-model"));
};

TEST_F(DemoTokenizer, DecodesWhatItEncoded) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = GenerateText(&random, 60);
    EXPECT_EQ(Decode(tokenizer_->vocabulary(), Encode(*tokenizer_, text),
                     /*skip_special_tokens=*/true),
              text);
  }
}

TEST_F(DemoTokenizer, IncrementalDecodingEqualsDecodingAtOnce) {
  std::mt19937_64 random(2);
  const Vocabulary& vocabulary = tokenizer_->vocabulary();
  for (int i = 0; i < 1000; ++i) {
    // Any ids, so that bytes seldom make whole characters.
    std::vector<TokenId> ids(random() % 40);
    for (TokenId& id : ids) {
      id = static_cast<TokenId>(random() % (vocabulary.size() + 10));
    }
    for (const bool skip : {false, true}) {
      std::string bytes;
      std::string pieces;
      IncrementalDecoder decoder(vocabulary, skip);
      for (const TokenId id : ids) {
        pieces += decoder.Append(id);
        EXPECT_FALSE(FirstInvalidUtf8(pieces));
        if (id >= vocabulary.size()) continue;
        const TokenEntry& token = vocabulary.tokens[id];
        if (!skip || token.kind != TokenKind::kSpecial) bytes += token.bytes;
      }
      pieces += decoder.Finish();
      EXPECT_EQ(pieces, ReplaceInvalidUtf8(bytes));
      EXPECT_EQ(pieces, Decode(vocabulary, ids, skip));
    }
  }
}

TEST_F(DemoTokenizer, SpecialTokensAreTextUnlessTheyAreAllowed) {
  const std::string text = "a<|eot_id|>b";
  EXPECT_THAT(Encode(*tokenizer_, text),
              ::testing::Not(::testing::Contains(4094)));
  EXPECT_THAT(
      Encode(*tokenizer_, text,
             {.add_special_tokens = false, .allow_special_tokens = true}),
      ElementsAre(64, 4094, 65));
}

TEST_F(DemoTokenizer, SpansAllowSpecialTokensOnlyInTheirText) {
  const auto ids = tokenizer_->EncodeSpans({{"<|eot_id|>", true},
                                            {"x<|eot_id|>", false},
                                            {"<|eot", true},
                                            {"_id|>", false}});
  ASSERT_OK(ids);
  EXPECT_EQ(std::count(ids->begin(), ids->end(), 4094), 1);
  EXPECT_EQ(ids->front(), 4094);
}

TEST_F(DemoTokenizer, SpansOfOrdinaryTextAreOneText) {
  const std::string text = "Once upon a time";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const auto ids =
        tokenizer_->EncodeSpans({{std::string_view(text).substr(0, cut), true},
                                 {std::string_view(text).substr(cut), false}});
    ASSERT_OK(ids);
    EXPECT_EQ(*ids, Encode(*tokenizer_, text)) << cut;
  }
  // Two halves of the template make one special token.
  const auto whole =
      tokenizer_->EncodeSpans({{"<|eot", true}, {"_id|>", true}});
  ASSERT_OK(whole);
  EXPECT_THAT(*whole, ElementsAre(4094));
}

TEST_F(DemoTokenizer, InvalidUtf8IsRefusedWithItsOffset) {
  EXPECT_THAT(tokenizer_->Encode("ab\xC3(", {}),
              HasReason(Reason::kInvalidUtf8, HasSubstr("byte 2")));
  EXPECT_THAT(tokenizer_->Encode("\xED\xA0\x80", {}),
              HasReason(Reason::kInvalidUtf8));
}

TEST_F(DemoTokenizer, KnowsItsSpecialIdsAndTemplate) {
  EXPECT_EQ(tokenizer_->vocabulary().bos_id, 4090);
  EXPECT_THAT(tokenizer_->vocabulary().eos_ids, ElementsAre(4091, 4094));
  EXPECT_THAT(std::string(tokenizer_->chat_template()),
              HasSubstr("start_header_id"));
  EXPECT_THAT(tokenizer_->named_tokens(),
              ::testing::Contains(std::pair<std::string, std::string>(
                  "eos_token", "<|eot_id|>")));
}

// A megabyte without a border takes time that grows with its size, not with
// its square: a quadratic loop would need hours.
TEST_F(DemoTokenizer, OneVeryLongWordIsEncoded) {
  std::string text;
  std::mt19937_64 random(3);
  for (int i = 0; i < 1'000'000; ++i) {
    text += static_cast<char>('a' + random() % 26);
  }
  EXPECT_EQ(Decode(tokenizer_->vocabulary(), Encode(*tokenizer_, text), true),
            text);
  const std::string spaces(1'000'000, ' ');
  EXPECT_EQ(Decode(tokenizer_->vocabulary(), Encode(*tokenizer_, spaces), true),
            spaces);
}

TEST(SmallSentencePiece, MergesByScoreAndFallsBackToBytes) {
  SentencePieceFile file;
  file.byte_fallback = true;
  file.remove_extra_whitespaces = false;
  file.AddStandardPieces();       // 0 to 258
  file.Add("\xE2\x96\x81", -10);  // 259
  file.Add("a", -11);             // 260
  file.Add("b", -12);             // 261
  file.Add("ab", -1);             // 262
  file.Add(
      "\xE2\x96\x81"
      "a",
      -0.5F);  // 263
  const auto tokenizer = LoadFile("tokenizer.model", file.Serialize());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(Encode(*tokenizer, "ab"), ElementsAre(263, 261));
  EXPECT_THAT(Encode(*tokenizer, "bab"), ElementsAre(259, 261, 262));
  EXPECT_THAT(Encode(*tokenizer, "\xC3\xA9"),
              ElementsAre(259, 3 + 0xC3, 3 + 0xA9));
  EXPECT_THAT(Encode(*tokenizer, ""), IsEmpty());
  EXPECT_THAT(Encode(*tokenizer, "ab", {.add_special_tokens = true}),
              ElementsAre(1, 263, 261));
  EXPECT_THAT(
      Encode(*tokenizer, "a</s>a",
             {.add_special_tokens = false, .allow_special_tokens = true}),
      ElementsAre(263, 2, 263));
  const std::vector<TokenId> ids = {1, 263, 261, 259, 260};
  EXPECT_EQ(Decode(tokenizer->vocabulary(), ids, true), "ab a");
}

TEST(SmallSentencePiece, UserDefinedAndUnusedPiecesAndUnknownCharacters) {
  SentencePieceFile file;
  file.remove_extra_whitespaces = true;
  file.Add("<unk>", 0, /*type=*/2);
  file.Add("<s>", 0, /*type=*/3);
  file.Add("</s>", 0, /*type=*/3);
  file.Add("\xE2\x96\x81", -10);   // 3
  file.Add("a", -11);              // 4
  file.Add("b", -12);              // 5
  file.Add("ab", -1, /*type=*/5);  // 6, unused
  file.Add("aba", -2);             // 7
  file.Add("<x>", 0, /*type=*/4);  // 8, user-defined
  const auto tokenizer = LoadFile("tokenizer.model", file.Serialize());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(Encode(*tokenizer, "ab"), ElementsAre(3, 4, 5));
  EXPECT_THAT(Encode(*tokenizer, "aba"), ElementsAre(3, 7));
  EXPECT_THAT(Encode(*tokenizer, "a<x>b"), ElementsAre(3, 4, 8, 5));
  EXPECT_THAT(Encode(*tokenizer, "a??b"), ElementsAre(3, 4, 0, 5));
  EXPECT_THAT(Encode(*tokenizer, "  a   b  "), ElementsAre(3, 4, 3, 5));
  EXPECT_THAT(Encode(*tokenizer, "   "), IsEmpty());
}

TEST(SmallSentencePiece, CharactersThatAreNoPieceStillMerge) {
  SentencePieceFile file;
  file.Add("<unk>", 0, /*type=*/2);
  file.Add("<s>", 0, /*type=*/3);
  file.Add("</s>", 0, /*type=*/3);
  file.Add("\xE2\x96\x81", -10);  // 3
  file.Add("xy", -1);             // 4; neither x nor y is a piece
  const auto tokenizer = LoadFile("tokenizer.model", file.Serialize());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(Encode(*tokenizer, "xyx"), ElementsAre(3, 4, 0));
}

TEST(LegacyFalse, OnlyTheBeginningOfTheTextGetsThePrefix) {
  SentencePieceFile file;
  file.byte_fallback = true;
  file.AddStandardPieces();
  file.Add("\xE2\x96\x81", -10);  // 259
  file.Add("a", -11);             // 260
  const ModelDirectory directory;
  directory.Write("tokenizer.model", file.Serialize());
  directory.Write("tokenizer_config.json",
                  R"({"legacy": false, "add_bos_token": false,
                      "eos_token": {"content": "</s>"}})");
  const auto tokenizer = Load(directory.path());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(
      Encode(*tokenizer, "a</s>a",
             {.add_special_tokens = true, .allow_special_tokens = true}),
      ElementsAre(259, 260, 2, 260));
}

TEST(PaddedVocabulary, AddedTokensOfTheDirectoryAreFound) {
  SentencePieceFile file;
  file.byte_fallback = true;
  file.AddStandardPieces();
  file.Add("\xE2\x96\x81", -10);  // 259
  const ModelDirectory directory;
  directory.Write("tokenizer.model", file.Serialize());
  directory.Write("added_tokens.json", R"({"[PAD]": 300})");
  const auto tokenizer = Load(directory.path());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocabulary().size(), 301);
  EXPECT_EQ(tokenizer->vocabulary().tokens[299].kind, TokenKind::kUnused);
  EXPECT_THAT(
      Encode(*tokenizer, "[PAD]",
             {.add_special_tokens = false, .allow_special_tokens = true}),
      ElementsAre(300));
}

// A model of single characters and two merges, with added
// tokens of both kinds.
std::string NormalizedNamesJson(const std::string& normalizer,
                                const std::string& pre_tokenizer,
                                bool special = false) {
  nlohmann::json file = {{"normalizer", ParseJson(normalizer)},
                         {"pre_tokenizer", ParseJson(pre_tokenizer)},
                         {"model",
                          {{"type", "BPE"},
                           {"unk_token", "<unk>"},
                           {"vocab", nlohmann::json::object()},
                           {"merges", {"\u2581 a", "a b"}}}}};
  int next = 0;
  for (const char* const piece :
       {"<unk>", "\u2581", "a", "b", "c", "X", "<", ">", "n",
        "\u2581"
        "a",
        "ab", "\n", " ", "_"}) {
    file["model"]["vocab"][piece] = next++;
  }
  // Without the flag: what is not special is normalized.
  file["added_tokens"] = {
      {{"id", 14}, {"content", "<n>"}, {"normalized", true}},
      {{"id", 15}, {"content", "<r>"}, {"normalized", false}},
      {{"id", 5}, {"content", "X"}, {"single_word", true}},
      {{"id", 16}, {"content", "X c"}},
      {{"id", 17}, {"content", "<l>"}, {"lstrip", true}, {"rstrip", true}},
      {{"id", 18}, {"content", "a<r>"}}};
  if (special) file["added_tokens"][0]["special"] = true;
  return DumpJson(file);
}

constexpr char kReplace[] =
    R"({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})";
constexpr char kPrependAndReplace[] =
    R"({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "},
         "content": "\u2581"}]})";

using TextAndIds = std::pair<std::string, std::vector<TokenId>>;

void ExpectIds(const Tokenizer* tokenizer,
               const std::vector<TextAndIds>& expected) {
  ASSERT_NE(tokenizer, nullptr);
  for (const auto& [text, ids] : expected) {
    EXPECT_EQ(Encode(*tokenizer, text), ids) << text;
  }
}

// The ids are those of the tokenizers library, version 0.23.3.
TEST(NormalizedNames, GetThePrefixAndVisibleSpacesOfTheNormalizer) {
  const auto tokenizer = LoadFile(
      "tokenizer.json", NormalizedNamesJson(kPrependAndReplace, "null"));
  ExpectIds(tokenizer.get(), {{"<n>", {14}},
                              {"a<n>", {9, 6, 8, 7}},
                              {"a <n> b", {9, 14, 1, 3}},
                              {"<r><n>", {15, 14}},
                              {"<r>a<r>", {15, 9, 15}},
                              {"b X", {1, 3, 1, 5}},
                              {"bX", {1, 3, 5}},
                              {"a X c", {9, 16}},
                              {"<r>X", {15, 5}},
                              {"b <l>\n a", {1, 3, 17, 9}},
                              {"b\n<l> a", {1, 3, 11, 6, 0, 7, 9}},
                              {"a<r>b<n>", {9, 15, 1, 3, 6, 8, 7}},
                              {"  <n>", {1, 1, 14}}});
}

TEST(NormalizedNames, AreFoundBeforeThePreTokenizerAddsItsPrefix) {
  const auto tokenizer = LoadFile(
      "tokenizer.json",
      NormalizedNamesJson(kReplace, R"({"type": "Metaspace", "split": false,
                                        "prepend_scheme": "first"})"));
  ExpectIds(tokenizer.get(), {{"<n>", {14}},
                              {"a<n>", {9, 14}},
                              {"a <n> b", {9, 1, 14, 1, 3}},
                              {"<r><n>", {15, 14}},
                              {"<r>a<r>", {15, 2, 15}},
                              {"b X", {1, 3, 1, 5}},
                              {"bX", {1, 3, 5}},
                              {"a X c", {9, 1, 16}},
                              {"<r>X", {15, 5}},
                              {"b <l>\n a", {1, 3, 1, 17, 9}},
                              {"b\n<l> a", {1, 3, 17, 9}},
                              {"a<r>b<n>", {9, 15, 3, 14}},
                              {"  <n>", {1, 1, 14}}});
}

TEST(NormalizedNames, ArePlainAndComeSecondWithoutANormalizer) {
  const auto tokenizer =
      LoadFile("tokenizer.json", NormalizedNamesJson("null", "null"));
  ExpectIds(tokenizer.get(), {{"<n>", {14}},
                              {"a<n>", {2, 14}},
                              {"a <n> b", {2, 12, 14, 12, 3}},
                              {"<r><n>", {15, 14}},
                              {"<r>a<r>", {15, 2, 15}},
                              {"b X", {3, 12, 5}},
                              {"bX", {3, 5}},
                              {"a X c", {2, 12, 16}},
                              {"<r>X", {15, 5}},
                              {"b <l>\n a", {3, 17, 2}},
                              {"b\n<l> a", {3, 17, 2}},
                              {"a<r>b<n>", {2, 15, 3, 14}},
                              {"  <n>", {12, 12, 14}}});
}

// Also where normalizing moves the borders between the spans.
TEST(NormalizedNames, SpecialOnesAreFoundOnlyWhereTheyAreAllowed) {
  const auto tokenizer = LoadFile(
      "tokenizer.json", NormalizedNamesJson(kPrependAndReplace, "null", true));
  ASSERT_NE(tokenizer, nullptr);
  const auto count = [&](const std::vector<TextSpan>& spans) {
    const auto ids = tokenizer->EncodeSpans(spans);
    EXPECT_OK(ids);
    return ids.ok() ? std::count(ids->begin(), ids->end(), 14) : -1;
  };
  EXPECT_EQ(count({{"<n> b <n>", false}}), 0);
  EXPECT_EQ(count({{"<n> b <n>", true}}), 2);
  EXPECT_EQ(count({{"<n> b", true}, {" <n>", false}, {" <n>", true}}), 2);
  EXPECT_EQ(count({{"b <n> b", false}, {" <n>", true}, {" <n>", false}}), 1);
  EXPECT_EQ(count({{"a b c ", false}, {"<n>", true}}), 0);  // not its space
  EXPECT_EQ(count({{"a <r>", false}, {" <n>", true}, {" <n>", false}}), 1);
  EXPECT_EQ(count({{" <n", true}, {">", false}}), 0);
}

TEST(NormalizedNames, OfTheDirectoryAreFoundInNormalizedTextToo) {
  SentencePieceFile file;
  file.byte_fallback = true;
  file.remove_extra_whitespaces = false;
  file.AddStandardPieces();
  file.Add("\xE2\x96\x81", -10);  // 259
  file.Add("a", -11);             // 260
  const auto load = [&](const std::string& flag) {
    const ModelDirectory directory;
    directory.Write("tokenizer.model", file.Serialize());
    directory.Write("tokenizer_config.json",
                    R"({"add_bos_token": false, "added_tokens_decoder":
                        {"261": {"content": "<t>")" +
                        flag + "}}}");
    return Load(directory.path());
  };
  const auto normalized = load("");
  const auto raw = load(R"(, "normalized": false)");
  ASSERT_TRUE(normalized && raw);
  EXPECT_THAT(Encode(*normalized, "a <t>a"), ElementsAre(259, 260, 261, 260));
  EXPECT_THAT(Encode(*raw, "a <t>a"),
              ElementsAre(259, 260, 259, 261, 259, 260));
  EXPECT_NE(normalized->tokenizer_id(), raw->tokenizer_id());
}

TEST(TokenizerId, ChangesWithWhatChangesTheIds) {
  SentencePieceFile file;
  file.byte_fallback = true;
  file.AddStandardPieces();
  file.Add("a", -11);
  file.Add("b", -12);
  file.Add("ab", -1);
  file.Add("ba", -2);
  const auto base = LoadFile("tokenizer.model", file.Serialize());
  file.remove_extra_whitespaces = !file.remove_extra_whitespaces;
  const auto spaces = LoadFile("tokenizer.model", file.Serialize());
  file.remove_extra_whitespaces = !file.remove_extra_whitespaces;
  file.pieces.back().score = 0;
  const auto order = LoadFile("tokenizer.model", file.Serialize());
  ASSERT_TRUE(base && spaces && order);
  EXPECT_NE(base->tokenizer_id(), spaces->tokenizer_id());
  EXPECT_NE(base->tokenizer_id(), order->tokenizer_id());
}

}  // namespace
}  // namespace caravan::text
