// Files that are torn, wrong or malicious: each gets an error that names it.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "common/json.h"
#include "common/text/model_files.h"
#include "common/text/tokenizer.h"
#include "common/text/utf8.h"
#include "tests/common/text/model_directory.h"
#include "tests/common/text/small_models.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"

namespace caravan::text {
namespace {

using ::caravan::testing::HasReason;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

absl::Status LoadStatus(
    const std::vector<std::pair<std::string, std::string>>& files) {
  const ModelDirectory directory;
  for (const auto& [name, content] : files) directory.Write(name, content);
  return Tokenizer::LoadDirectory(directory.path()).status();
}

// A byte-level tokenizer.json with the 256 bytes and one merge.
json SmallTokenizerJson() {
  json vocab;
  int next = 0;
  for (int c = 0; c < 0x144; ++c) {
    std::string piece;
    AppendUtf8(c, &piece);
    if (FromByteAlphabet(piece)) vocab[piece] = next++;
  }
  vocab["ab"] = next++;
  return {
      {"added_tokens", {{{"id", next}, {"content", "<s>"}, {"special", true}}}},
      {"pre_tokenizer",
       {{"type", "ByteLevel"},
        {"add_prefix_space", false},
        {"use_regex", true}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b"}}}}};
}

TEST(HostileTokenizerJson, TheSmallOneIsGood) {
  EXPECT_OK(LoadStatus({{"tokenizer.json", DumpJson(SmallTokenizerJson())}}));
}

TEST(HostileTokenizerJson, EveryWrongPartIsNamed) {
  const auto refused = [](auto change, const std::string& what) {
    json file = SmallTokenizerJson();
    change(file);
    EXPECT_THAT(LoadStatus({{"tokenizer.json", DumpJson(file)}}),
                HasReason(Reason::kModelFileInvalid,
                          AllOf(HasSubstr("tokenizer.json"), HasSubstr(what))));
  };
  refused([](json& f) { f["model"]["type"] = "Unigram"; }, "Unigram");
  refused([](json& f) { f["model"]["vocab"] = 3; }, "vocab");
  refused([](json& f) { f["model"]["vocab"]["q"] = "x"; }, "vocab");
  refused([](json& f) { f["model"]["vocab"]["zz"] = -1; }, "-1");
  refused([](json& f) { f["model"]["vocab"]["zz"] = 1LL << 40; }, "zz");
  refused([](json& f) { f["model"]["vocab"]["zz"] = 0; }, "two pieces");
  refused([](json& f) { f["model"]["vocab"].erase("a"); }, "");
  refused([](json& f) { f["model"]["vocab"][""] = 999; }, "empty");
  refused([](json& f) { f["model"]["vocab"][std::string(5000, 'x')] = 999; },
          "5000");
  refused([](json& f) { f["model"]["merges"] = {"a"}; }, "merges [0]");
  refused([](json& f) { f["model"]["merges"] = {"a zzz"}; }, "merges [0]");
  refused(
      [](json& f) {
        f["model"]["merges"] = json::array({json::array({"a", 1})});
      },
      "merges [0]");
  refused([](json& f) { f["model"]["merges"] = "a b"; }, "merges");
  refused([](json& f) { f["model"]["vocab"] = json::array({"a"}); }, "vocab");
  refused([](json& f) { f["model"]["vocab"]["q"] = json::array({1}); }, "q");
  for (const char* const entry :
       {R"({"x": "a", "y": "b"})", R"([["a"], "b"])", R"(["a", "b", []])",
        R"(["a", "b", "c"])", R"(["", "b"])", R"(["a", ""])", R"(["a", {}])",
        "7", "null", R"("a ")", R"(" b")"}) {
    refused(
        [&](json& f) {
          f["model"]["merges"] = json::array({ParseJson(entry)});
        },
        "merges [0]");
  }
  refused([](json& f) { f["model"]["dropout"] = 0.1; }, "dropout");
  refused([](json& f) { f["model"]["unk_token"] = "<u>"; }, "<u>");
  refused([](json& f) { f["normalizer"] = {{"type", "NFKC"}}; }, "NFKC");
  refused([](json& f) { f["pre_tokenizer"] = {{"type", "Bert"}}; }, "Bert");
  refused([](json& f) { f["decoder"] = {{"type", "WordPiece"}}; }, "WordPiece");
  refused(
      [](json& f) {
        f["post_processor"] = {{"type", "Roberta"}};
      },
      "Roberta");
  refused(
      [](json& f) {
        f["pre_tokenizer"] = {{"type", "Split"},
                              {"behavior", "Isolated"},
                              {"pattern", {{"Regex", "(unclosed"}}}};
        f["model"]["vocab"] = json::object();
        f["model"]["merges"] = json::array();
      },
      "offset");
  refused([](json& f) { f["added_tokens"][0]["id"] = 1 << 30; }, "id");
  refused([](json& f) { f["added_tokens"][0]["content"] = ""; }, "content");
  refused([](json& f) { f["added_tokens"] = 7; }, "added_tokens");
}

TEST(HostileTokenizerJson, MergesMayBeStringsOrPairs) {
  json file = SmallTokenizerJson();
  file["model"]["merges"] = json::array({json::array({"a", "b"})});
  EXPECT_OK(LoadStatus({{"tokenizer.json", DumpJson(file)}}));
}

TEST(HostileTokenizerJson, RepeatedPiecesAreRefused) {
  std::string text = DumpJson(SmallTokenizerJson());
  const size_t vocab = text.find(R"("vocab":{)");
  ASSERT_NE(vocab, std::string::npos);
  text.insert(vocab + 9, R"("ab":5000,)");
  EXPECT_THAT(LoadStatus({{"tokenizer.json", text}}),
              HasReason(Reason::kModelFileInvalid, HasSubstr("repeats")));
}

TEST(HostileTokenizerJson, TornAndDeepFilesAreRefused) {
  const std::string whole = DumpJson(SmallTokenizerJson());
  for (size_t size = 0; size < whole.size(); size += 97) {
    EXPECT_THAT(LoadStatus({{"tokenizer.json", whole.substr(0, size)}}),
                HasReason(Reason::kModelFileInvalid, HasSubstr("offset")));
  }
  EXPECT_THAT(LoadStatus({{"tokenizer.json", std::string(100'000, '[')}}),
              HasReason(Reason::kModelFileInvalid, HasSubstr("deep")));
  EXPECT_THAT(LoadStatus({{"tokenizer.json", "[]"}}),
              HasReason(Reason::kModelFileInvalid));
}

TEST(HostileSentencePiece, EveryWrongPartIsNamed) {
  const auto refused = [](auto change, const std::string& what) {
    SentencePieceFile file;
    file.byte_fallback = true;
    file.AddStandardPieces();
    file.Add("a", -1);
    change(file);
    EXPECT_THAT(
        LoadStatus({{"tokenizer.model", file.Serialize()}}),
        HasReason(Reason::kModelFileInvalid,
                  AllOf(HasSubstr("tokenizer.model"), HasSubstr(what))));
  };
  using File = SentencePieceFile;
  refused([](File& f) { f.model_type = 1; }, "model_type 1");
  refused([](File& f) { f.charsmap = "abc"; }, "character map");
  refused([](File& f) { f.Add("a", -2); }, "piece 260 repeats");
  refused([](File& f) { f.Add("", -2); }, "piece 260 is empty");
  refused([](File& f) { f.Add("\xFF", -2); }, "UTF-8");
  refused([](File& f) { f.Add("b", -2, 9); }, "type 9");
  refused([](File& f) { f.Add("<0xZZ>", -2, 6); }, "<0xZZ>");
  refused([](File& f) { f.Add("b", std::nanf("")); }, "NaN");
  refused([](File& f) { f.Add(std::string(9999, 'b'), -1); }, "9999");
  refused([](File& f) { f.pieces.clear(); }, "");
}

TEST(HostileSentencePiece, TornFilesAreRefusedOrGood) {
  SentencePieceFile file;
  file.byte_fallback = true;
  file.AddStandardPieces();
  file.Add("a", -1);
  const std::string whole = file.Serialize();
  for (size_t size = 0; size < whole.size(); size += 13) {
    const absl::Status status =
        LoadStatus({{"tokenizer.model", whole.substr(0, size)}});
    if (!status.ok()) {
      EXPECT_THAT(status, HasReason(Reason::kModelFileInvalid));
    }
  }
  EXPECT_THAT(LoadStatus({{"tokenizer.model", "\x0A\xFF\xFF\xFF\xFF\xFF"}}),
              HasReason(Reason::kModelFileInvalid, HasSubstr("byte")));
}

std::string AllByteRanks() {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (int byte = 0; byte < 256; ++byte) {
    out += kDigits[byte >> 2];
    out += kDigits[(byte & 3) << 4];
    out += "== " + std::to_string(byte) + "\n";
  }
  return out;
}

TEST(HostileRanks, EveryWrongLineIsNamed) {
  const std::string good = AllByteRanks();
  EXPECT_OK(LoadStatus({{"tokenizer.model", good}}));
  const auto refused = [&](const std::string& extra, const std::string& what) {
    EXPECT_THAT(LoadStatus({{"tokenizer.model", good + extra}}),
                HasReason(Reason::kModelFileInvalid, HasSubstr(what)));
  };
  refused("!!!! 256\n", "line 257 is no rank");
  refused("YWI= x\n", "line 257 is no rank");
  refused("YWI= -1\n", "line 257 is no rank");
  refused("YWI= 0\n", "repeats rank 0");
  refused("YWI= 300\n", "all ranks");
  refused("QQ== 256\n", "repeats bytes");
  refused("YWI= 99999999\n", "99999999");
  EXPECT_THAT(LoadStatus({{"tokenizer.model", "IQ== 0\n"}}),
              HasReason(Reason::kModelFileInvalid, HasSubstr("byte 0")));
}

TEST(HostileDirectory, WrongSideFilesAreNamed) {
  const std::string model = DumpJson(SmallTokenizerJson());
  const auto refused = [&](const std::string& name, const std::string& content,
                           const std::string& what) {
    EXPECT_THAT(LoadStatus({{"tokenizer.json", model}, {name, content}}),
                HasReason(Reason::kModelFileInvalid,
                          AllOf(HasSubstr(name), HasSubstr(what))));
  };
  refused("tokenizer_config.json", "{", "offset");
  refused("tokenizer_config.json", "[]", "object");
  refused("tokenizer_config.json", R"({"bos_token": 3})", "bos_token");
  refused("tokenizer_config.json", R"({"chat_template": 3})", "chat_template");
  refused("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {}}})",
          "no id");
  refused("tokenizer_config.json",
          R"({"added_tokens_decoder": {"9": {"content": ""}}})", "names");
  refused("generation_config.json", R"({"eos_token_id": "x"})", "eos_token_id");
  refused("generation_config.json", R"({"eos_token_id": [1, 99999999999]})",
          "eos_token_id[1]");
  refused("added_tokens.json", R"({"x": -4})", "-4");
  refused("chat_template.jinja", "\xFF", "UTF-8");
  EXPECT_THAT(LoadStatus({}),
              HasReason(Reason::kModelFileInvalid, HasSubstr("neither")));
}

}  // namespace
}  // namespace caravan::text
