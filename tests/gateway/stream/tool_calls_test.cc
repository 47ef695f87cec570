#include "gateway/stream/tool_calls.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "common/json.h"

namespace caravan::gateway {
namespace {

const std::vector<Tool> kTools = {
    {"get_weather", "{}"}, {"add", "{}"}, {"brave_search", "{}"}};

// "name arguments" of each call, one after the other.
std::string Parsed(const std::string& text) {
  std::string out;
  for (const ToolCall& call : ParseToolCalls(text, kTools)) {
    out += call.name + " " + call.arguments_json + "\n";
  }
  return out;
}

TEST(ToolCallsTest, JsonWithParametersOrArguments) {
  EXPECT_EQ(Parsed(R"({"name": "add", "parameters": {"b": 1, "a": 2.5}})"),
            "add {\"b\":1,\"a\":2.5}\n");
  EXPECT_EQ(Parsed(R"( {"type": "function", "name": "add", "arguments": {}})"),
            "add {}\n");
  EXPECT_EQ(Parsed(R"({"type": "function", "function":
                      {"name": "add", "arguments": "{\"a\": 1}"}})"),
            "add {\"a\": 1}\n");
  EXPECT_EQ(Parsed("<|python_tag|>{\"name\": \"add\", \"parameters\": {}}"),
            "add {}\n");
}

TEST(ToolCallsTest, SeveralJsonCalls) {
  const std::string one = R"({"name": "add", "parameters": {"a": 1}})";
  const std::string parsed = "add {\"a\":1}\n";
  EXPECT_EQ(Parsed(one + "; " + one), parsed + parsed);
  EXPECT_EQ(Parsed(one + "\n" + one), parsed + parsed);
  EXPECT_EQ(Parsed("[" + one + ", " + one + "]"), parsed + parsed);
}

TEST(ToolCallsTest, PythonicCalls) {
  EXPECT_EQ(Parsed("[get_weather(city='Z\xC3\xBCrich', days=3), add()]"),
            "get_weather {\"city\":\"Z\xC3\xBCrich\",\"days\":3}\nadd {}\n");
  EXPECT_EQ(Parsed("[add(a=-1.5, b=[1, \"x\", None], c={'k': True}, d='\\'')]"),
            "add {\"a\":-1.5,\"b\":[1,\"x\",null],\"c\":{\"k\":true},"
            "\"d\":\"'\"}\n");
}

TEST(ToolCallsTest, TaggedAndBuiltInCalls) {
  EXPECT_EQ(Parsed("<function=add>{\"a\": 1}</function>"), "add {\"a\":1}\n");
  EXPECT_EQ(Parsed("<|python_tag|>brave_search.call(query=\"weather\")"),
            "brave_search {\"query\":\"weather\"}\n");
}

TEST(ToolCallsTest, WhatIsNoCallIsWords) {
  for (const std::string text :
       {"", "The answer is 5.", "{\"name\": \"unknown\", \"parameters\": {}}",
        "{\"name\": \"add\"}", "{\"name\": \"add\", \"parameters\": 3}",
        "{\"name\": \"add\", \"parameters\": {}} and more",
        "{\"name\": \"add\", \"parameters\": {", "[add(1, 2)]", "[1, 2]",
        "[add(a=1)", "[add(a=b)]", "[]", "{}", "<function=add>3",
        "<function=add", "add.call(", "{\"a\":\"\\", "[add(a='",
        "[add(a={'k'})]"}) {
    EXPECT_EQ(Parsed(text), "") << text;
  }
  EXPECT_EQ(Parsed("{\"name\": \"add\", \"parameters\": {\"a\": " +
                   std::string(1000, '[') + std::string(1000, ']') + "}}"),
            "");
}

TEST(ToolCallsTest, TooManyValuesAreWords) {
  std::string json = R"({"name": "add", "parameters": {"k": 0)";
  std::string python = "[add(k=0";
  for (int i = 0; i < 4096; ++i) {
    json += ",\"k" + std::to_string(i) + "\":0";
    python += ", k" + std::to_string(i) + "=0";
  }
  EXPECT_EQ(Parsed(json + "}}"), "");
  EXPECT_EQ(Parsed(python + ")]"), "");
}

// Whatever a model writes, a call is a call and anything else is words; here
// that reading it ends, and that a call's arguments are JSON objects.
TEST(ToolCallsTest, ReadsAnyText) {
  const std::vector<std::string> parts = {"{",
                                          "}",
                                          "[",
                                          "]",
                                          "(",
                                          ")",
                                          "\"",
                                          "'",
                                          "\\",
                                          ",",
                                          ":",
                                          ";",
                                          "=",
                                          " ",
                                          "add",
                                          "\"name\"",
                                          "1",
                                          "-2.5e3",
                                          "None",
                                          "True",
                                          "\"add\"",
                                          "a",
                                          "\n",
                                          ".call",
                                          "\"parameters\"",
                                          "\"arguments\"",
                                          "<function=",
                                          "</function>",
                                          "<|python_tag|>",
                                          "\xC3\xBC"};
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string text = round % 4 == 0 ? "[add(a=" : "";
    if (round % 4 == 1) text = R"({"name": "add", "parameters": {)";
    for (size_t i = random() % 12; i > 0; --i) {
      text += parts[random() % parts.size()];
    }
    if (round % 4 == 0) text += ")]";
    if (round % 4 == 1) text += "}}";
    for (const ToolCall& call : ParseToolCalls(text, kTools)) {
      EXPECT_TRUE(MayBecomeToolCalls(text, kTools)) << text;
      EXPECT_TRUE(ParseJson(call.arguments_json).is_object()) << text;
    }
  }
}

TEST(ToolCallsTest, BeginningsThatMayBecomeCalls) {
  for (const std::string text :
       {"", " \n", "{", "{ \"na", "[", "[get_w", "[get_weather(", "<func",
        "<|python_", "<|python_tag|>", "brave_se", "brave_search.call("}) {
    EXPECT_TRUE(MayBecomeToolCalls(text, kTools)) << text;
  }
  for (const std::string text :
       {"The", "{1", "[1", "[link]", "<b>", "brave new", "<|python "}) {
    EXPECT_FALSE(MayBecomeToolCalls(text, kTools)) << text;
  }
}

ChoiceDelta Say(const std::string& text, bool last = false) {
  ChoiceDelta delta;
  delta.text = text;
  delta.tokens.resize(1);
  if (last) delta.finish = FinishReason::kStop;
  return delta;
}

TEST(ToolCallFilterTest, HoldsACallAndGivesItWhole) {
  ToolCallFilter filter(kTools, "call_r0_");
  EXPECT_FALSE(filter.Apply(Say("{\"name\": \"add\", ")).has_value());
  EXPECT_FALSE(filter.Apply(Say("\"parameters\": {\"a\": 1}}")).has_value());
  const auto delta = filter.Apply(Say("", /*last=*/true));
  ASSERT_TRUE(delta.has_value());
  EXPECT_EQ(delta->text, "");
  EXPECT_EQ(delta->finish, FinishReason::kToolCalls);
  EXPECT_EQ(delta->tokens.size(), 3u);
  EXPECT_EQ(delta->tool_calls,
            (std::vector<ToolCall>{{"call_r0_0", "add", "{\"a\":1}"}}));
}

TEST(ToolCallFilterTest, WordsPassAsTheyCome) {
  ToolCallFilter filter(kTools, "");
  EXPECT_FALSE(filter.Apply(Say(" ")).has_value());
  const auto first = filter.Apply(Say("The"));
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->text, " The");
  EXPECT_EQ(filter.Apply(Say(" {"))->text, " {");
  EXPECT_EQ(filter.Apply(Say("x", /*last=*/true))->finish, FinishReason::kStop);
}

TEST(ToolCallFilterTest, ACallThatWasCutOffIsWords) {
  ToolCallFilter filter(kTools, "");
  EXPECT_FALSE(filter.Apply(Say("{\"name\": \"add\"")).has_value());
  ChoiceDelta last = Say(", \"par");
  last.finish = FinishReason::kLength;
  const auto delta = filter.Apply(std::move(last));
  ASSERT_TRUE(delta.has_value());
  EXPECT_EQ(delta->text, "{\"name\": \"add\", \"par");
  EXPECT_EQ(delta->finish, FinishReason::kLength);
  EXPECT_TRUE(delta->tool_calls.empty());
}

}  // namespace
}  // namespace caravan::gateway
