// Every tokenizer against ids and texts that other implementations computed.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/text/incremental_decoder.h"
#include "common/text/tokenizer.h"
#include "tests/common/text/gguf_models.h"
#include "tests/common/text/model_directory.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"

namespace caravan::text {
namespace {

using nlohmann::json;

std::vector<json> ReadLines(const std::string& path) {
  std::istringstream lines(testing::ReadFile(path));
  std::vector<json> rows;
  for (std::string line; std::getline(lines, line);) {
    rows.push_back(ParseJson(line));
  }
  EXPECT_GT(rows.size(), 0u) << path;
  return rows;
}

std::unique_ptr<Tokenizer> LoadFrom(const std::string& directory) {
  auto tokenizer = Tokenizer::LoadDirectory(directory);
  EXPECT_OK(tokenizer);
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

void ExpectEncodes(const Tokenizer& tokenizer, const std::string& goldens,
                   bool allow_special_tokens) {
  for (const json& row : ReadLines(goldens)) {
    const std::string text = row["text"];
    const auto ids =
        tokenizer.Encode(text, {.add_special_tokens = false,
                                .allow_special_tokens = allow_special_tokens});
    ASSERT_OK(ids);
    EXPECT_EQ(*ids, row["ids"].get<std::vector<TokenId>>())
        << goldens << ": " << text.substr(0, 200);
  }
}

// Texts, and that any way of feeding the ids gives the same.
void ExpectDecodes(const Tokenizer& tokenizer, const std::string& goldens) {
  for (const json& row : ReadLines(goldens)) {
    if (!row.value("valid_utf8", true)) continue;
    const auto ids = row["ids"].get<std::vector<TokenId>>();
    EXPECT_EQ(Decode(tokenizer.vocabulary(), ids, /*skip_special_tokens=*/true),
              row["text"].get<std::string>())
        << goldens;
  }
}

// One tokenizer folder of the reference data with a format of its own.
class Golden : public ::testing::Test {
 protected:
  static std::unique_ptr<Tokenizer> Load(const std::string& source,
                                         const std::string& file) {
    const ModelDirectory directory;
    directory.Copy(source + "/" + file, file);
    return LoadFrom(directory.path());
  }

  // The vocabulary of `source` in a GGUF file.
  static std::unique_ptr<Tokenizer> LoadGguf(const std::string& source) {
    const ModelDirectory directory;
    const json file = ParseJson(testing::ReadFile(source + "/tokenizer.json"));
    const bool byte_level = !file["model"].value("byte_fallback", false);
    const auto other = Load(source, "tokenizer.model");
    if (other == nullptr) return nullptr;
    directory.Write("model.gguf", byte_level ? ByteLevelGguf(file, "llama-bpe")
                                             : SentencePieceGguf(*other, 3));
    return LoadFrom(directory.path());
  }
};

TEST_F(Golden, Llama2SentencePieceEncodes) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(source, "tokenizers/llama-2");
  CARAVAN_REFERENCE_PATH_OR_SKIP(goldens, "goldens/tokenizers");
  const auto tokenizer = Load(source, "tokenizer.model");
  ASSERT_NE(tokenizer, nullptr);
  ExpectEncodes(*tokenizer, goldens + "/llama-2.encode.jsonl", false);
  ExpectEncodes(*tokenizer, goldens + "/llama-2.llama-cpp-vectors.jsonl",
                false);
  ExpectEncodes(*tokenizer,
                goldens + "/llama-2.encode-special-tokenizer-json.jsonl", true);
  ExpectDecodes(*tokenizer, goldens + "/llama-2.decode.jsonl");
}

TEST_F(Golden, Llama2TokenizerJsonEncodes) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(source, "tokenizers/llama-2");
  CARAVAN_REFERENCE_PATH_OR_SKIP(goldens, "goldens/tokenizers");
  const auto tokenizer = Load(source, "tokenizer.json");
  ASSERT_NE(tokenizer, nullptr);
  ExpectEncodes(*tokenizer, goldens + "/llama-2.encode.jsonl", false);
  ExpectEncodes(*tokenizer, goldens + "/llama-2.llama-cpp-vectors.jsonl",
                false);
  ExpectEncodes(*tokenizer,
                goldens + "/llama-2.encode-special-tokenizer-json.jsonl", true);
  ExpectDecodes(*tokenizer, goldens + "/llama-2.decode.jsonl");
}

TEST_F(Golden, Llama3RanksEncode) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(source, "tokenizers/llama-3");
  CARAVAN_REFERENCE_PATH_OR_SKIP(goldens, "goldens/tokenizers");
  const auto tokenizer = Load(source, "tokenizer.model");
  ASSERT_NE(tokenizer, nullptr);
  ExpectEncodes(*tokenizer, goldens + "/llama-3.encode.jsonl", false);
  ExpectEncodes(*tokenizer, goldens + "/llama-3.llama-cpp-vectors.jsonl",
                false);
  ExpectEncodes(*tokenizer, goldens + "/llama-3.encode-special.jsonl", true);
  ExpectDecodes(*tokenizer, goldens + "/llama-3.decode.jsonl");
}

TEST_F(Golden, Llama3TokenizerJsonEncodes) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(source, "tokenizers/llama-3");
  CARAVAN_REFERENCE_PATH_OR_SKIP(goldens, "goldens/tokenizers");
  const auto tokenizer = Load(source, "tokenizer.json");
  ASSERT_NE(tokenizer, nullptr);
  ExpectEncodes(*tokenizer, goldens + "/llama-3.encode.jsonl", false);
  ExpectEncodes(*tokenizer, goldens + "/llama-3.llama-cpp-vectors.jsonl",
                false);
  ExpectDecodes(*tokenizer, goldens + "/llama-3.decode.jsonl");
}

// The names of the special goldens are those of a later release; they come
// with tokenizer_config.json.
TEST_F(Golden, Llama3TokenizerJsonWithLaterNamesEncodesSpecialTokens) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(source, "tokenizers/llama-3");
  CARAVAN_REFERENCE_PATH_OR_SKIP(goldens, "goldens/tokenizers");
  const ModelDirectory directory;
  directory.Copy(source + "/tokenizer.json", "tokenizer.json");
  const json names = ParseJson(testing::ReadFile(
      source + "/special_tokens.json"))["names_llama_models_repository"];
  json config;
  for (const auto& [name, id] : names.items()) {
    config["added_tokens_decoder"][std::to_string(id.get<int>())] = {
        {"content", name}, {"special", true}};
  }
  directory.Write("tokenizer_config.json", DumpJson(config));
  const auto tokenizer = LoadFrom(directory.path());
  ASSERT_NE(tokenizer, nullptr);
  ExpectEncodes(*tokenizer, goldens + "/llama-3.encode-special.jsonl", true);
}

TEST_F(Golden, Stories260kEncodes) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(source, "stories260k");
  CARAVAN_REFERENCE_PATH_OR_SKIP(goldens, "goldens/tokenizers");
  const auto tokenizer = LoadFrom(source);
  ASSERT_NE(tokenizer, nullptr);
  ExpectEncodes(*tokenizer, goldens + "/stories260k.encode.jsonl", false);
  ExpectDecodes(*tokenizer, goldens + "/stories260k.decode.jsonl");
}

TEST_F(Golden, Stories260kTokenizerJsonEncodes) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(source, "tokenizers/stories260k");
  CARAVAN_REFERENCE_PATH_OR_SKIP(goldens, "goldens/tokenizers");
  const auto tokenizer = LoadFrom(source);
  ASSERT_NE(tokenizer, nullptr);
  ExpectEncodes(*tokenizer,
                goldens + "/stories260k-tokenizer-json.encode.jsonl", true);
}

TEST_F(Golden, Storyllamas4096Encodes) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(source, "tokenizers/storyllamas-4096");
  CARAVAN_REFERENCE_PATH_OR_SKIP(goldens, "goldens/tokenizers");
  const auto tokenizer = LoadFrom(source);
  ASSERT_NE(tokenizer, nullptr);
  ExpectEncodes(*tokenizer, goldens + "/storyllamas-4096.encode.jsonl", false);
}

TEST_F(Golden, Llama2GgufEncodes) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(source, "tokenizers/llama-2");
  CARAVAN_REFERENCE_PATH_OR_SKIP(goldens, "goldens/tokenizers");
  const auto tokenizer = LoadGguf(source);
  ASSERT_NE(tokenizer, nullptr);
  ExpectEncodes(*tokenizer, goldens + "/llama-2.encode.jsonl", false);
  ExpectEncodes(*tokenizer, goldens + "/llama-2.llama-cpp-vectors.jsonl",
                false);
  ExpectEncodes(*tokenizer,
                goldens + "/llama-2.encode-special-tokenizer-json.jsonl", true);
  ExpectDecodes(*tokenizer, goldens + "/llama-2.decode.jsonl");
  EXPECT_EQ(tokenizer->chat_template(), "{{ bos_token }}{{ messages }}");
  EXPECT_EQ(tokenizer->vocabulary().bos_id, 1);
  EXPECT_EQ(tokenizer->vocabulary().size(), 32000);
}

TEST_F(Golden, Llama3GgufEncodes) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(source, "tokenizers/llama-3");
  CARAVAN_REFERENCE_PATH_OR_SKIP(goldens, "goldens/tokenizers");
  const auto tokenizer = LoadGguf(source);
  ASSERT_NE(tokenizer, nullptr);
  ExpectEncodes(*tokenizer, goldens + "/llama-3.encode.jsonl", false);
  ExpectEncodes(*tokenizer, goldens + "/llama-3.llama-cpp-vectors.jsonl",
                false);
  ExpectDecodes(*tokenizer, goldens + "/llama-3.decode.jsonl");
}

// What llama.cpp wrote into a file of its own.
TEST_F(Golden, Stories260kGgufEncodes) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(source, "gguf/stories260k-f16.gguf");
  CARAVAN_REFERENCE_PATH_OR_SKIP(folder, "stories260k");
  const auto tokenizer = LoadFrom(source);
  const auto original = LoadFrom(folder);
  ASSERT_NE(tokenizer, nullptr);
  ASSERT_NE(original, nullptr);
  for (const std::string text : {"Once upon a time", "caf\xC3\xA9 \n\t!"}) {
    EXPECT_EQ(*tokenizer->Encode(text, {}), *original->Encode(text, {}));
  }
}

TEST_F(Golden, EveryFormatOfOneVocabularyHasOneTokenizerId) {
  for (const char* const name : {"llama-2", "llama-3"}) {
    CARAVAN_REFERENCE_PATH_OR_SKIP(source, std::string("tokenizers/") + name);
    const auto from_model = Load(source, "tokenizer.model");
    const auto from_json = Load(source, "tokenizer.json");
    const auto from_gguf = LoadGguf(source);
    ASSERT_NE(from_model, nullptr);
    ASSERT_NE(from_json, nullptr);
    ASSERT_NE(from_gguf, nullptr);
    EXPECT_EQ(from_model->tokenizer_id().size(), 32u);
    EXPECT_EQ(from_model->tokenizer_id(), from_json->tokenizer_id()) << name;
    EXPECT_EQ(from_model->tokenizer_id(), from_gguf->tokenizer_id()) << name;
  }
}

TEST(DemoModelGolden, EncodesAndDecodes) {
  const std::string directory = testing::RepositoryPath("deploy/demo-model");
  const auto tokenizer = LoadFrom(directory);
  ASSERT_NE(tokenizer, nullptr);
  const json goldens =
      ParseJson(testing::ReadFile(directory + "/goldens.json"));
  for (const json& row : goldens["tokenizer"]) {
    const std::string text = row["text"];
    const auto ids = tokenizer->Encode(
        text, {.add_special_tokens = true, .allow_special_tokens = true});
    ASSERT_OK(ids);
    EXPECT_EQ(*ids, row["ids"].get<std::vector<TokenId>>()) << text;
    EXPECT_EQ(Decode(tokenizer->vocabulary(), *ids, true),
              row["decoded"].get<std::string>());
  }
}

}  // namespace
}  // namespace caravan::text
