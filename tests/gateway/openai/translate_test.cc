#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "gateway/openai/chat_translate.h"
#include "gateway/openai/completions_translate.h"
#include "gateway/openai/error_body.h"
#include "gateway/openai/tokenize_translate.h"
#include "tests/support/status_matchers.h"

namespace caravan::gateway::openai {
namespace {

using ::caravan::testing::HasReason;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A body that must be refused: with which reason, and a part of the message.
struct Refusal {
  std::string body;
  Reason reason;
  std::string message;
};

std::string WithPrompt(const std::string& fields) {
  return R"({"model":"m","prompt":"hi",)" + fields + "}";
}

std::string WithMessages(const std::string& fields) {
  return R"({"model":"m","messages":[{"role":"user","content":"hi"}],)" +
         fields + "}";
}

TEST(CompletionsTranslateTest, RefusesHostileBodiesByName) {
  const std::string deep(100, '[');
  const std::vector<Refusal> refusals = {
      {"", Reason::kMalformedJson, "byte"},
      {"{", Reason::kMalformedJson, "byte 2"},
      {"[]", Reason::kInvalidField, "body must be a JSON object"},
      {"\"x\"", Reason::kInvalidField, "body"},
      {"{\"prompt\":\"\xFF\"}", Reason::kInvalidUtf8, "byte 11"},
      {"{\"prompt\":\"\xED\xA0\x80\"}", Reason::kInvalidUtf8, "byte 11"},
      {R"({"prompt":"\ud800"})", Reason::kMalformedJson, "byte"},
      {"{\"prompt\":" + deep, Reason::kMalformedJson, "nested deeper than 64"},
      {R"({"prompt":NaN})", Reason::kMalformedJson, "byte"},
      {R"({"model":"m"})", Reason::kInvalidField, "prompt must be given"},
      {R"({"prompt":5})", Reason::kInvalidField, "prompt must be"},
      {R"({"prompt":[]})", Reason::kInvalidField, "1 to 256"},
      {R"({"prompt":[[]]})", Reason::kInvalidField, "prompt[0]"},
      {R"({"prompt":["a",5]})", Reason::kInvalidField, "prompt[1]"},
      {R"({"prompt":[1,-2]})", Reason::kInvalidField, "prompt[1]"},
      {R"({"prompt":[1,2.5]})", Reason::kInvalidField, "got 2.5"},
      {R"({"prompt":[1,99999999999]})", Reason::kInvalidField, "prompt[1]"},
      {WithPrompt(R"("model":5)"), Reason::kInvalidField, "model"},
      {WithPrompt(R"("temperature":"hot")"), Reason::kInvalidField,
       "temperature must be a number; got \"hot\""},
      {WithPrompt(R"("temperature":1e999)"), Reason::kMalformedJson, "range"},
      {WithPrompt(R"("temperature":1e300)"), Reason::kInvalidField,
       "temperature"},
      {WithPrompt(R"("max_tokens":1.5)"), Reason::kInvalidField, "max_tokens"},
      {WithPrompt(R"("max_tokens":99999999999)"), Reason::kInvalidField,
       "max_tokens"},
      {WithPrompt(R"("n":0)"), Reason::kInvalidField, "n must be in [1, 16]"},
      {WithPrompt(R"("n":17)"), Reason::kInvalidField, "got 17"},
      {WithPrompt(R"("n":18446744073709551615)"), Reason::kInvalidField, "n"},
      {WithPrompt(R"("best_of":2)"), Reason::kUnsupportedParameter, "best_of"},
      {WithPrompt(R"("suffix":5)"), Reason::kInvalidField, "suffix"},
      {WithPrompt(R"("suffix":"x","echo":true)"), Reason::kUnsupportedParameter,
       "echo"},
      {WithPrompt(R"("suffix":"x","infill_order":"mps")"),
       Reason::kInvalidField, "infill_order"},
      {R"({"prompt":[1,2],"suffix":"x"})", Reason::kInvalidField,
       "suffix must be given with a prompt that is text"},
      {WithPrompt(R"("tools":[{"type":"function"}])"),
       Reason::kUnsupportedParameter, "tools"},
      {WithPrompt(R"("logprobs":21)"), Reason::kInvalidField, "logprobs"},
      {WithPrompt(R"("logprobs":true)"), Reason::kInvalidField, "logprobs"},
      {WithPrompt(R"("stop":[1])"), Reason::kInvalidField, "stop[0]"},
      {WithPrompt(R"("stop":5)"), Reason::kInvalidField, "stop"},
      {WithPrompt(R"("stream":"yes")"), Reason::kInvalidField, "stream"},
      {WithPrompt(R"("stream_options":{"include_usage":true})"),
       Reason::kInvalidField, "stream_options"},
      {WithPrompt(R"("stream":true,"stream_options":{"x":1})"),
       Reason::kUnknownParameter, "stream_options.x"},
      {WithPrompt(R"("logit_bias":{"a":1})"), Reason::kInvalidField, "\"a\""},
      {WithPrompt(R"("logit_bias":{"1":"x"})"), Reason::kInvalidField,
       "logit_bias"},
      {WithPrompt(R"("seed":1.5)"), Reason::kInvalidField, "seed"},
      {WithPrompt(R"("tempratura":1)"), Reason::kUnknownParameter,
       "tempratura is not a known parameter"},
      {WithPrompt(R"("adapter":"a")"), Reason::kUnsupportedParameter,
       "adapter"},
      {WithPrompt(R"("response_format":{"type":"json_object"})"),
       Reason::kUnsupportedParameter, "response_format"},
      {WithPrompt(R"("priority":101)"), Reason::kInvalidField, "priority"},
  };
  for (const Refusal& refusal : refusals) {
    EXPECT_THAT(TranslateCompletion(refusal.body),
                HasReason(refusal.reason, HasSubstr(refusal.message)))
        << refusal.body;
  }
}

TEST(ChatTranslateTest, RefusesHostileBodiesByName) {
  const std::vector<Refusal> refusals = {
      {R"({"model":"m"})", Reason::kInvalidField, "messages must be given"},
      {R"({"messages":[]})", Reason::kInvalidField, "1 to 4096"},
      {R"({"messages":"hi"})", Reason::kInvalidField, "messages"},
      {R"({"messages":[5]})", Reason::kInvalidField, "messages[0]"},
      {R"({"messages":[{"content":"x"}]})", Reason::kInvalidField,
       "messages[0].role"},
      {R"({"messages":[{"role":"user"}]})", Reason::kInvalidField,
       "messages[0].content"},
      {R"({"messages":[{"role":"user","content":5}]})", Reason::kInvalidField,
       "messages[0].content"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url",
          "image_url":{"url":"x"}}]}]})",
       Reason::kUnsupportedParameter, "messages[0].content[0].type"},
      {R"({"messages":[{"role":"user","content":"x","weight":1}]})",
       Reason::kUnknownParameter, "messages[0].weight"},
      {WithMessages(R"("prompt":"x")"), Reason::kUnknownParameter, "prompt"},
      {WithMessages(R"("echo":true)"), Reason::kUnknownParameter, "echo"},
      {WithMessages(R"("tools":[{"type":"function"}])"), Reason::kInvalidField,
       "tools[0].function must be an object"},
      {WithMessages(R"("tools":{})"), Reason::kInvalidField, "tools"},
      {WithMessages(R"("tools":[3])"), Reason::kInvalidField, "tools[0]"},
      {WithMessages(R"("tools":[{"type":"web_search"}])"),
       Reason::kUnsupportedParameter, "tools[0].type"},
      {WithMessages(R"("tools":[{"type":"function","function":{"name":"a b"}}]
                    )"),
       Reason::kInvalidField, "tools[0].function.name"},
      {WithMessages(R"("tools":[{"type":"function","function":{"name":"f",
                    "strict":true}}])"),
       Reason::kUnsupportedParameter, "tools[0].function.strict"},
      {WithMessages(R"("tools":[{"type":"function","function":{"name":"f",
                    "parameters":[]}}])"),
       Reason::kInvalidField, "tools[0].function.parameters"},
      {WithMessages(R"("tools":[{"name":"f"},{"name":"f"}])"),
       Reason::kInvalidField, "unique; got f again"},
      {WithMessages(R"("tools":[{"name":"f"}],"tool_choice":"required")"),
       Reason::kUnsupportedParameter, "tool_choice"},
      {WithMessages(R"("tools":[{"name":"f"}],"tool_choice":"maybe")"),
       Reason::kInvalidField, "tool_choice"},
      {WithMessages(R"("tools":[{"name":"f"}],"parallel_tool_calls":false)"),
       Reason::kUnsupportedParameter, "parallel_tool_calls"},
      {WithMessages(R"("tool_choice":"auto")"), Reason::kInvalidField,
       "tool_choice"},
      {WithMessages(R"("top_logprobs":3)"), Reason::kInvalidField,
       "top_logprobs"},
      {WithMessages(R"("logprobs":true,"top_logprobs":21)"),
       Reason::kInvalidField, "top_logprobs must be in [0, 20]"},
      {WithMessages(R"("logprobs":5)"), Reason::kInvalidField, "logprobs"},
      {WithMessages(R"("max_tokens":5,"max_completion_tokens":6)"),
       Reason::kInvalidField, "max_completion_tokens"},
  };
  for (const Refusal& refusal : refusals) {
    EXPECT_THAT(TranslateChat(refusal.body),
                HasReason(refusal.reason, HasSubstr(refusal.message)))
        << refusal.body;
  }
}

TEST(CompletionsTranslateTest, ReadsEveryField) {
  ASSERT_OK_AND_ASSIGN(
      const GenerationRequest request,
      TranslateCompletion(R"({"model":"m","prompt":"hi","temperature":0.5,
        "top_p":0.9,"top_k":40,"min_p":0.1,"repetition_penalty":1.1,
        "presence_penalty":-1,"frequency_penalty":2,"seed":-1,
        "logit_bias":{"7":-100,"5":1.5},"stop":["a","b"],"max_tokens":0,
        "min_tokens":0,"stop_token_ids":[3],"ignore_eos":true,
        "include_stop_str_in_output":true,"stream":true,
        "stream_options":{"include_usage":true},"n":2,"best_of":2,
        "echo":true,"logprobs":3,"return_token_ids":true,
        "skip_special_tokens":false,"allow_inexact_resume":true,
        "priority":-5,"user":"u","metadata":{"a":"b"},"store":true,
        "service_tier":"auto","suffix":null,"response_format":{"type":"text"}
      })"));
  EXPECT_EQ(request.model, "m");
  EXPECT_EQ(std::get<std::string>(request.prompts.at(0)), "hi");
  EXPECT_EQ(request.sampling.temperature, 0.5f);
  EXPECT_EQ(request.sampling.top_k, 40);
  EXPECT_EQ(request.sampling.seed, 0xFFFFFFFFFFFFFFFFu);
  ASSERT_EQ(request.sampling.logit_bias.size(), 2u);
  EXPECT_EQ(request.sampling.logit_bias[0].token_id, 5);
  EXPECT_EQ(request.sampling.logprob_count, 3);
  EXPECT_EQ(request.sampling.prompt_logprob_count, 3);
  EXPECT_THAT(request.stop.stop, ElementsAre("a", "b"));
  EXPECT_EQ(request.stop.max_tokens, 0);
  EXPECT_THAT(request.stop.stop_token_ids, ElementsAre(3));
  EXPECT_TRUE(request.stop.ignore_eos);
  EXPECT_TRUE(request.stop.include_stop_str_in_output);
  EXPECT_TRUE(request.stream);
  EXPECT_TRUE(request.include_usage);
  EXPECT_EQ(request.n, 2);
  EXPECT_TRUE(request.echo);
  EXPECT_TRUE(request.return_token_ids);
  EXPECT_FALSE(request.skip_special_tokens);
  EXPECT_TRUE(request.allow_inexact_resume);
  EXPECT_EQ(request.priority, -5);
  EXPECT_EQ(request.default_max_tokens, 16);
}

TEST(CompletionsTranslateTest, ReadsEveryFormOfPrompt) {
  using Ids = std::vector<TokenId>;
  const auto prompts = [](const std::string& json) {
    const auto request = TranslateCompletion("{\"prompt\":" + json + "}");
    EXPECT_OK(request);
    return request.ok() ? request->prompts : std::vector<PromptInput>();
  };
  const auto ids = prompts("[1,2]");
  ASSERT_EQ(ids.size(), 1u);
  EXPECT_EQ(std::get<Ids>(ids[0]), (Ids{1, 2}));
  const auto lists = prompts("[[1],[2,3]]");
  ASSERT_EQ(lists.size(), 2u);
  EXPECT_EQ(std::get<Ids>(lists[1]), (Ids{2, 3}));
  const auto texts = prompts(R"(["a","b"])");
  ASSERT_EQ(texts.size(), 2u);
  EXPECT_EQ(std::get<std::string>(texts[1]), "b");
  EXPECT_EQ(prompts(R"("")").size(), 1u);
}

TEST(ChatTranslateTest, ReadsMessagesPartsAndToolCalls) {
  ASSERT_OK_AND_ASSIGN(const GenerationRequest request,
                       TranslateChat(R"({"messages":[
        {"role":"system","content":"s"},
        {"role":"user","name":"bob","content":[
          {"type":"text","text":"a"},{"type":"text","text":"b"}]},
        {"role":"assistant","content":null,"tool_calls":[{"id":"1",
          "type":"function","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"1","content":"r"}],
        "max_completion_tokens":7,"logprobs":true,"top_logprobs":2,
        "tool_choice":"none","tools":[],"parallel_tool_calls":true})"));
  const auto& chat = std::get<Conversation>(request.prompts.at(0));
  ASSERT_EQ(chat.messages.size(), 4u);
  EXPECT_THAT(chat.messages[1].content, ElementsAre("a", "b"));
  EXPECT_EQ(chat.messages[1].name, "bob");
  EXPECT_EQ(chat.messages[2].tool_calls.at(0).name, "f");
  EXPECT_EQ(chat.messages[3].tool_call_id, "1");
  EXPECT_EQ(request.stop.max_tokens, 7);
  EXPECT_EQ(request.sampling.logprob_count, 2);
  EXPECT_FALSE(request.default_max_tokens);
}

TEST(ChatTranslateTest, AToolKeepsTheOrderOfItsKeys) {
  const std::string body = WithMessages(
      R"("zebra_is_unknown":null,"tools":[{"type":"function","function":
      {"name":"f","parameters":{"type":"object","properties":
      {"z":{"type":"string"},"a":{"enum":[1.5,null]}}}}}],
      "tool_choice":"auto")");
  EXPECT_THAT(TranslateChat(body), HasReason(Reason::kUnknownParameter));
  std::string known = body;
  known.replace(known.find("zebra_is_unknown"), 16, "user");
  ASSERT_OK_AND_ASSIGN(const GenerationRequest request, TranslateChat(known));
  const auto& chat = std::get<Conversation>(request.prompts.at(0));
  ASSERT_EQ(chat.tools.size(), 1u);
  EXPECT_EQ(chat.tools[0].name, "f");
  EXPECT_EQ(chat.tools[0].definition_json,
            R"({"type":"function","function":{"name":"f","parameters":)"
            R"({"type":"object","properties":{"z":{"type":"string"},)"
            R"("a":{"enum":[1.5,null]}}}}})");
}

TEST(ChatTranslateTest, WithChoiceNoneToolsAreLeftOut) {
  ASSERT_OK_AND_ASSIGN(const GenerationRequest request,
                       TranslateChat(WithMessages(
                           R"("tools":[{"name":"f"}],"tool_choice":"none")")));
  EXPECT_THAT(std::get<Conversation>(request.prompts.at(0)).tools,
              ::testing::IsEmpty());
}

TEST(ChatTranslateTest, WideAndManyToolsAreRefused) {
  std::string wide = R"("tools":[{"name":"f","parameters":{"a":0)";
  for (int i = 0; i < 1024; ++i) wide += ",\"" + std::to_string(i) + "\":0";
  EXPECT_THAT(TranslateChat(WithMessages(wide + "}}]")),
              HasReason(Reason::kInvalidField, HasSubstr("1024 keys")));
  std::string many = R"("tools":[{"name":"f"})";
  for (int i = 0; i < 128; ++i) {
    many += R"(,{"name":"f)" + std::to_string(i) + "\"}";
  }
  EXPECT_THAT(TranslateChat(WithMessages(many + "]")),
              HasReason(Reason::kInvalidField, HasSubstr("at most 128")));
}

TEST(CompletionsTranslateTest, ASuffixMakesPromptsGapsToFill) {
  ASSERT_OK_AND_ASSIGN(
      const GenerationRequest request,
      TranslateCompletion(
          R"({"prompt":["a","b"],"suffix":"z","infill_order":"spm"})"));
  ASSERT_EQ(request.prompts.size(), 2u);
  const auto& second = std::get<Infill>(request.prompts[1]);
  EXPECT_EQ(second.prefix, "b");
  EXPECT_EQ(second.suffix, "z");
  EXPECT_TRUE(second.suffix_first);
  ASSERT_OK_AND_ASSIGN(const GenerationRequest plain,
                       TranslateCompletion(R"({"prompt":"a","suffix":""})"));
  EXPECT_EQ(std::get<std::string>(plain.prompts[0]), "a");
}

TEST(TokenizeTranslateTest, TakesAPromptOrMessagesAndNotBoth) {
  EXPECT_OK(TranslateTokenize(R"({"prompt":"a","add_special_tokens":false})"));
  EXPECT_OK(
      TranslateTokenize(R"({"messages":[{"role":"user","content":"a"}]})"));
  EXPECT_THAT(TranslateTokenize("{}"), HasReason(Reason::kInvalidField));
  EXPECT_THAT(TranslateTokenize(
                  R"({"prompt":"a","messages":[{"role":"u","content":""}]})"),
              HasReason(Reason::kInvalidField, HasSubstr("not both")));
  EXPECT_THAT(TranslateDetokenize(R"({"tokens":["a"]})"),
              HasReason(Reason::kInvalidField, HasSubstr("tokens[0]")));
  EXPECT_THAT(TranslateDetokenize("{}"),
              HasReason(Reason::kInvalidField, HasSubstr("tokens")));
}

TEST(ErrorBodyTest, NamesFieldReasonAndWhetherToRetry) {
  EXPECT_EQ(ErrorBody(FieldError("temperature", "in [0, 2]", "9")),
            R"({"error":{"message":"temperature must be in [0, 2]; got 9",)"
            R"("type":"invalid_request_error","param":"temperature",)"
            R"("code":"INVALID_FIELD","retryable":false}})");
  EXPECT_EQ(ErrorBody(MakeError(Reason::kNoReplica, "nobody")),
            R"({"error":{"message":"nobody","type":"server_error",)"
            R"("param":null,"code":"NO_REPLICA","retryable":true}})");
}

TEST(ErrorBodyTest, EveryReasonHasAnHttpStatus) {
  for (int i = 1; i < kReasonCount; ++i) {
    const int status = HttpStatus(static_cast<Reason>(i));
    EXPECT_GE(status, 400) << i;
    EXPECT_LE(status, 504) << i;
  }
  EXPECT_EQ(HttpStatus(Reason::kQueueFull), 429);
  EXPECT_EQ(HttpStatus(Reason::kBodyTooLarge), 413);
  EXPECT_EQ(HttpStatus(Reason::kModelNotFound), 404);
  EXPECT_EQ(HttpStatus(Reason::kUnauthenticated), 401);
  EXPECT_EQ(HttpStatus(Reason::kDraining), 503);
}

TEST(ErrorBodyTest, RetryAfterIsAtLeastASecond) {
  const absl::Status full =
      WithRetryAfter(MakeError(Reason::kQueueFull, ""), absl::Seconds(2.2));
  EXPECT_EQ(RetryAfterSeconds(full), 3);
  EXPECT_EQ(RetryAfterSeconds(MakeError(Reason::kInvalidField, "")), 0);
}

}  // namespace
}  // namespace caravan::gateway::openai
