#include "services/tokenizer/prepare.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/services/tokenizer/extended_model.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"

namespace caravan::tokenizer {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::HasReason;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const RenderTime kTime = {absl::UnixEpoch(), absl::UTCTimeZone()};

v1::PrepareInput UserSays(const std::string& text) {
  v1::PrepareInput input;
  v1::ChatMessage* const message = input.mutable_conversation()->add_messages();
  message->set_role("user");
  message->add_content()->set_text(text);
  return input;
}

TEST(PrepareTest, AnInfillEndsWithItsOwnToken) {
  const auto directory = ExtendedLlama2(CodeLlamaPieces());
  if (!directory) GTEST_SKIP() << "no Llama-2 vocabulary";
  const auto model = LoadModel({"code", directory->path()});
  ASSERT_OK(model);
  v1::PrepareInput input;
  input.mutable_infill()->set_prefix("a");
  input.mutable_infill()->set_suffix("b");
  auto prepared = PrepareInput(*model, input, "inputs[0]", kTime);
  ASSERT_OK(prepared);
  EXPECT_THAT(prepared->prompt.token_ids(),
              ElementsAre(1, 32007, 263, 32008, 29890, 32009));
  EXPECT_THAT(prepared->prompt.end_token_ids(), ElementsAre(32010));

  input.mutable_infill()->set_order(v1::INFILL_ORDER_SUFFIX_PREFIX_MIDDLE);
  prepared = PrepareInput(*model, input, "inputs[0]", kTime);
  ASSERT_OK(prepared);
  EXPECT_THAT(prepared->prompt.token_ids(),
              ElementsAre(1, 32007, 32008, 29890, 32009, 263));

  input.mutable_infill()->set_order(static_cast<v1::InfillOrder>(7));
  EXPECT_THAT(
      PrepareInput(*model, input, "inputs[0]", kTime),
      HasReason(Reason::kInvalidField,
                AllOf(HasSubstr("inputs[0].infill.order"), HasSubstr("7"))));
}

TEST(PrepareTest, AFormatSaysWhatEndsItsAnswers) {
  const std::string demo = testing::RepositoryPath("deploy/demo-model");
  const auto model = LoadModel({"demo", demo, "vicuna-v0"});
  ASSERT_OK(model);
  const auto prepared =
      PrepareInput(*model, UserSays("Hi"), "inputs[0]", kTime);
  ASSERT_OK(prepared);
  EXPECT_THAT(prepared->prompt.stop_texts(), ElementsAre("###"));
  EXPECT_THAT(prepared->prompt.rendered(), HasSubstr("### Human: Hi\n"));
}

TEST(PrepareTest, ATemplateWithoutToolsRefusesThem) {
  const std::string demo = testing::RepositoryPath("deploy/demo-model");
  const auto model = LoadModel({"demo", demo});
  ASSERT_OK(model);
  v1::PrepareInput input = UserSays("Hi");
  input.mutable_conversation()->add_tools()->set_definition_json(
      R"({"name": "f"})");
  EXPECT_THAT(
      PrepareInput(*model, input, "inputs[0]", kTime),
      HasReason(Reason::kUnsupportedParameter, HasSubstr("no place for them")));
}

TEST(PrepareTest, ToolsTakeTheTemplateThatIsForThem) {
  const std::string demo = testing::RepositoryPath("deploy/demo-model");
  const text::ModelDirectory directory;
  directory.Copy(demo + "/tokenizer.json", "tokenizer.json");
  directory.Write("tokenizer_config.json",
                  R"({"chat_template": [
                      {"name": "default", "template": "plain"},
                      {"name": "tool_use", "template": "tools"}]})");
  const auto model = LoadModel({"m", directory.path()});
  ASSERT_OK(model);
  v1::PrepareInput input = UserSays("Hi");
  const auto plain = PrepareInput(*model, input, "inputs[0]", kTime);
  ASSERT_OK(plain);
  EXPECT_EQ(plain->prompt.rendered(), "plain");
  EXPECT_THAT(plain->prompt.stop_texts(), IsEmpty());
  input.mutable_conversation()->add_tools()->set_definition_json(
      R"({"name": "f"})");
  const auto tools = PrepareInput(*model, input, "inputs[0]", kTime);
  ASSERT_OK(tools);
  EXPECT_EQ(tools->prompt.rendered(), "tools");
  EXPECT_NE(tools->template_id, plain->template_id);
}

}  // namespace
}  // namespace caravan::tokenizer
