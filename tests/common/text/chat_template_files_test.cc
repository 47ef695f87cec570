#include "common/text/chat_template_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tests/common/text/model_directory.h"
#include "tests/support/status_matchers.h"

namespace caravan::text {
namespace {

using caravan::testing::HasReason;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

absl::StatusOr<ChatTemplates> Read(const ModelDirectory& directory,
                                   const nlohmann::json& config = nullptr) {
  return ReadChatTemplates(directory.path(),
                           JsonReader(config, "tokenizer_config.json"));
}

std::string SourceOf(const ModelDirectory& directory,
                     const nlohmann::json& config = nullptr) {
  const auto templates = Read(directory, config);
  EXPECT_OK(templates);
  return templates.ok() ? templates->source : "";
}

TEST(ChatTemplateFilesTest, TheMoreParticularFileWins) {
  const ModelDirectory directory;
  EXPECT_EQ(SourceOf(directory), "");
  directory.Write("chat_template.json", R"({"chat_template": "processor"})");
  EXPECT_EQ(SourceOf(directory), "processor");
  const nlohmann::json config = {{"chat_template", "config"}};
  EXPECT_EQ(SourceOf(directory, config), "config");
  directory.Write("chat_template.jinja", "file");
  EXPECT_EQ(SourceOf(directory, config), "file");
}

TEST(ChatTemplateFilesTest, NamedTemplatesComeFromTheListAndTheFolder) {
  const ModelDirectory directory;
  std::filesystem::create_directory(directory.path() +
                                    "/additional_chat_templates");
  directory.Write("additional_chat_templates/tool_use.jinja", "newer");
  directory.Write("additional_chat_templates/rag.jinja", "rag");
  directory.Write("additional_chat_templates/readme.txt", "not one");
  const auto templates =
      Read(directory, {{"chat_template",
                        {{{"name", "default"}, {"template", "plain"}},
                         {{"name", "tool_use"}, {"template", "older"}}}}});
  ASSERT_OK(templates);
  EXPECT_EQ(templates->source, "plain");
  EXPECT_THAT(templates->named,
              ElementsAre(Pair("rag", "rag"), Pair("tool_use", "newer")));
}

TEST(ChatTemplateFilesTest, WrongFilesAreNamed) {
  const ModelDirectory directory;
  EXPECT_THAT(Read(directory, {{"chat_template", 3}}),
              HasReason(Reason::kModelFileInvalid, HasSubstr("chat_template")));
  directory.Write("chat_template.jinja", "\xFF");
  EXPECT_THAT(Read(directory),
              HasReason(Reason::kModelFileInvalid, HasSubstr("UTF-8")));
  directory.Write("chat_template.jinja", std::string((1 << 20) + 1, 'x'));
  EXPECT_THAT(Read(directory),
              HasReason(Reason::kModelFileInvalid, HasSubstr("at most")));
}

}  // namespace
}  // namespace caravan::text
