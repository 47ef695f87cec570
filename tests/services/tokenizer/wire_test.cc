#include "services/tokenizer/wire.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"

namespace caravan::tokenizer {
namespace {

using testing::HasReason;
using ::testing::HasSubstr;

TEST(WireTest, AMessageKeepsAllThatTemplatesAskFor) {
  v1::Conversation conversation;
  v1::ChatMessage* const call = conversation.add_messages();
  call->set_role("assistant");
  v1::ToolCall* const tool = call->add_tool_calls();
  tool->set_id("c1");
  tool->set_name("add");
  tool->set_arguments_json(R"({"b": 1, "a": [2.5, null]})");
  v1::ChatMessage* const answer = conversation.add_messages();
  answer->set_role("tool");
  answer->set_name("add");
  answer->set_tool_call_id("c1");
  answer->add_content()->set_text("3");
  answer->add_content()->set_text("4");
  conversation.add_tools()->set_definition_json(R"({"name": "add"})");
  conversation.set_template_variables_json(R"({"x": true})");
  conversation.set_add_generation_prompt(false);

  const auto parsed = FromProto(conversation, "conversation");
  ASSERT_OK(parsed);
  EXPECT_EQ(jinja::Repr(parsed->messages[0]),
            "{'role': 'assistant', 'content': None, 'tool_calls': [{'id': 'c1',"
            " 'type': 'function', 'function': {'name': 'add', 'arguments': "
            "{'b': 1, 'a': [2.5, None]}}}]}");
  EXPECT_EQ(jinja::Repr(parsed->messages[1]),
            "{'role': 'tool', 'content': '3\\n4', 'name': 'add', "
            "'tool_call_id': 'c1'}");
  ASSERT_TRUE(parsed->tools.has_value());
  EXPECT_EQ(jinja::Repr((*parsed->tools)[0]),
            "{'type': 'function', 'function': {'name': 'add'}}");
  EXPECT_FALSE(parsed->add_generation_prompt);
  EXPECT_NE(parsed->variables.Find("x"), nullptr);
}

TEST(WireTest, WithoutToolsTheTemplateSeesNone) {
  v1::Conversation conversation;
  conversation.add_messages()->set_role("user");
  const auto parsed = FromProto(conversation, "conversation");
  ASSERT_OK(parsed);
  EXPECT_FALSE(parsed->tools.has_value());
  EXPECT_TRUE(parsed->add_generation_prompt);
}

TEST(WireTest, WrongJsonNamesItsField) {
  v1::Conversation conversation;
  v1::ChatMessage* const message = conversation.add_messages();
  message->set_role("assistant");
  message->add_tool_calls()->set_arguments_json("[1]");
  EXPECT_THAT(FromProto(conversation, "c"),
              HasReason(Reason::kInvalidField,
                        HasSubstr("c.messages[0].tool_calls[0].arguments")));
  message->clear_tool_calls();
  conversation.set_template_variables_json(R"({"messages": []})");
  EXPECT_THAT(
      FromProto(conversation, "c"),
      HasReason(Reason::kInvalidField, HasSubstr("c.template_variables_json")));
  conversation.clear_template_variables_json();
  message->clear_role();
  EXPECT_THAT(FromProto(conversation, "c"),
              HasReason(Reason::kInvalidField, HasSubstr("messages[0].role")));
}

}  // namespace
}  // namespace caravan::tokenizer
