#include "services/tokenizer/model_set.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/common/text/model_directory.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"

namespace caravan::tokenizer {
namespace {

using testing::HasReason;
using ::testing::HasSubstr;

TEST(ModelSourceTest, TheNameIsGivenOrTheDirectorys) {
  EXPECT_EQ(ParseModelSource("/models/tiny").name, "tiny");
  EXPECT_EQ(ParseModelSource("/models/tiny/").name, "tiny");
  const ModelSource named = ParseModelSource("llama=/models/tiny");
  EXPECT_EQ(named.name, "llama");
  EXPECT_EQ(named.directory, "/models/tiny");
}

TEST(ModelSetTest, ANameIsGivenOnce) {
  const std::string demo = testing::RepositoryPath("deploy/demo-model");
  EXPECT_THAT(ModelSet::Load({{"a", demo}, {"a", demo}}),
              HasReason(Reason::kInvalidField, HasSubstr("--model")));
}

TEST(ModelSetTest, ABrokenTemplateOnlyRefusesConversations) {
  const std::string demo = testing::RepositoryPath("deploy/demo-model");
  const text::ModelDirectory directory;
  directory.Copy(demo + "/tokenizer.json", "tokenizer.json");
  directory.Write("chat_template.jinja", "{% if %}");
  const auto models = ModelSet::Load({{"a", directory.path()}});
  ASSERT_OK(models);
  const auto model = models->Find("a");
  ASSERT_OK(model);
  EXPECT_FALSE((*model)->chat_template.has_value());
  EXPECT_THAT((*model)->template_status,
              HasReason(Reason::kTemplateError, HasSubstr("line 1")));
}

TEST(ModelSetTest, AModelWithoutTemplateSaysSo) {
  const std::string demo = testing::RepositoryPath("deploy/demo-model");
  const text::ModelDirectory directory;
  directory.Copy(demo + "/tokenizer.json", "tokenizer.json");
  const auto models = ModelSet::Load({{"plain", directory.path()}});
  ASSERT_OK(models);
  EXPECT_THAT(
      (*models->Find("plain"))->template_status,
      HasReason(
          Reason::kTemplateError,
          HasSubstr("model plain has no chat template, and its vocabulary")));
}

}  // namespace
}  // namespace caravan::tokenizer
