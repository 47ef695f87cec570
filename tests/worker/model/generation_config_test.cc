#include "worker/model/generation_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace caravan::worker {
namespace {

using ::testing::ElementsAre;
using testing::HasReason;
using ::testing::HasSubstr;

absl::StatusOr<GenerationConfig> Parse(std::string_view text) {
  const testing::TemporaryDirectory directory;
  directory.Write("generation_config.json", text);
  return LoadGenerationConfig(directory.path(), /*vocab_size=*/512);
}

TEST(GenerationConfigTest, MissingFileHasNoDefaults) {
  const testing::TemporaryDirectory directory;
  ASSERT_OK_AND_ASSIGN(const GenerationConfig config,
                       LoadGenerationConfig(directory.path(), 512));
  EXPECT_FALSE(config.temperature || config.top_p || config.top_k ||
               config.min_p || config.repetition_penalty || config.eos_ids);
}

TEST(GenerationConfigTest, ReadsWhatTheFileSays) {
  ASSERT_OK_AND_ASSIGN(
      const GenerationConfig config,
      Parse(R"({"temperature": 0.6, "top_p": 0.9, "top_k": 50, "min_p": 0.1,
                "repetition_penalty": 1.1, "eos_token_id": [2, 511],
                "do_sample": true, "max_length": 1024})"));
  EXPECT_FLOAT_EQ(*config.temperature, 0.6f);
  EXPECT_FLOAT_EQ(*config.top_p, 0.9f);
  EXPECT_EQ(*config.top_k, 50);
  EXPECT_FLOAT_EQ(*config.min_p, 0.1f);
  EXPECT_FLOAT_EQ(*config.repetition_penalty, 1.1f);
  EXPECT_THAT(*config.eos_ids, ElementsAre(2, 511));
}

TEST(GenerationConfigTest, NoSamplingWithoutATemperatureIsGreedy) {
  ASSERT_OK_AND_ASSIGN(const GenerationConfig greedy,
                       Parse(R"({"do_sample": false})"));
  EXPECT_EQ(*greedy.temperature, 0);
  ASSERT_OK_AND_ASSIGN(const GenerationConfig silent, Parse("{}"));
  EXPECT_FALSE(silent.temperature.has_value());
}

TEST(GenerationConfigTest, ValuesOutOfRangeAreRefusedByName) {
  for (const char* const text :
       {R"({"temperature": -1})", R"({"temperature": 3})",
        R"({"temperature": "hot"})", R"({"top_p": 0})", R"({"top_p": 1.1})",
        R"({"top_k": -1})", R"({"top_k": 513})", R"({"min_p": 2})",
        R"({"repetition_penalty": 0})", R"({"eos_token_id": 512})",
        R"({"do_sample": 1})"}) {
    EXPECT_THAT(Parse(text), HasReason(Reason::kModelFileInvalid,
                                       HasSubstr("generation_config.json")))
        << text;
  }
}

}  // namespace
}  // namespace caravan::worker
