#include "services/tokenizer/builtin_templates.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/json.h"
#include "services/tokenizer/chat_template.h"
#include "services/tokenizer/model_set.h"
#include "tests/common/text/model_directory.h"
#include "tests/services/tokenizer/extended_model.h"
#include "tests/support/reference_data.h"
#include "tests/support/status_matchers.h"

namespace caravan::tokenizer {
namespace {

using nlohmann::ordered_json;
using testing::HasReason;
using ::testing::HasSubstr;
using text::TokenId;

const absl::Time kNow = absl::FromCivil(
    absl::CivilSecond(2024, 7, 26, 12, 34, 56), absl::UTCTimeZone());

jinja::Value Parse(const ordered_json& json) {
  auto value = jinja::ParseJson(DumpJson(json));
  EXPECT_OK(value);
  return value.ok() ? *value : jinja::Value();
}

ChatTemplate Builtin(const std::string& name, const std::string& bos = "<s>",
                     const std::string& eos = "</s>") {
  const BuiltinTemplate* const builtin = FindBuiltinTemplate(name);
  EXPECT_NE(builtin, nullptr) << name;
  auto made = ChatTemplate::Create(builtin->Source(),
                                   {{"bos_token", bos}, {"eos_token", eos}});
  EXPECT_OK(made) << name;
  return *std::move(made);
}

absl::StatusOr<std::string> Render(const ChatTemplate& chat_template,
                                   const Conversation& conversation) {
  const auto text =
      chat_template.Render(conversation, kNow, absl::UTCTimeZone());
  if (!text.ok()) return text.status();
  return text->bytes();
}

// {role, content} pairs.
Conversation Say(
    const std::vector<std::pair<std::string, std::string>>& messages,
    bool add_generation_prompt = true) {
  ordered_json list = ordered_json::array();
  for (const auto& [role, content] : messages) {
    list.push_back({{"role", role}, {"content", content}});
  }
  Conversation conversation;
  conversation.messages = Parse(list).items();
  conversation.add_generation_prompt = add_generation_prompt;
  return conversation;
}

Conversation ConversationOf(const ordered_json& row) {
  Conversation conversation;
  conversation.messages = Parse(row["messages"]).items();
  if (row["tools"].is_array()) conversation.tools = Parse(row["tools"]).items();
  conversation.add_generation_prompt = row["add_generation_prompt"];
  conversation.variables = Parse(row["extra"]).dict();
  return conversation;
}

using Adapt = std::function<std::string(std::string)>;

std::string AsItIs(std::string text) { return text; }

// Every golden of the published template `golden` holds for the built-in one,
// after `adapt` where they write the same format with another ornament.
void ExpectGoldens(const std::string& name, const std::string& golden,
                   int expected_rows, const Adapt& adapt = AsItIs) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(folder, "chat-templates");
  std::istringstream lines(testing::ReadFile(folder + "/goldens.jsonl"));
  int rows = 0;
  for (std::string line; std::getline(lines, line);) {
    const ordered_json row = ordered_json::parse(line);
    if (row["template"] != golden) continue;
    ++rows;
    const auto rendered = Render(
        Builtin(name, row["bos_token"], row["eos_token"]), ConversationOf(row));
    if (row.contains("error")) {
      EXPECT_THAT(rendered, HasReason(Reason::kTemplateError)) << line;
      continue;
    }
    ASSERT_OK(rendered) << line;
    EXPECT_EQ(*rendered, adapt(row["rendered"])) << line;
  }
  EXPECT_EQ(rows, expected_rows);
}

std::string WithoutEnd(std::string text) {
  for (size_t at; (at = text.find("</s>")) != std::string::npos;) {
    text.erase(at, 4);
  }
  return text;
}

TEST(BuiltinTemplatesTest, Llama2ChatRendersThePublishedGoldens) {
  ExpectGoldens("llama-2-chat", "llama-2-chat", 10);
  ExpectGoldens("code-llama-instruct", "llama-2-chat", 10);
}

TEST(BuiltinTemplatesTest, Llama3RendersThePublishedGoldens) {
  ExpectGoldens("llama-3-instruct", "llama-3-generation-prompt", 11);
}

TEST(BuiltinTemplatesTest, Llama31RendersThePublishedGoldensToolsIncluded) {
  ExpectGoldens("llama-3.1-instruct", "llama-3.1-instruct", 22);
}

TEST(BuiltinTemplatesTest, Llama32RendersThePublishedGoldensToolsIncluded) {
  ExpectGoldens("llama-3.2-instruct", "llama-3.2-instruct", 19);
}

TEST(BuiltinTemplatesTest, VicunaRendersThePublishedGoldens) {
  ExpectGoldens("vicuna-v1.1", "vicuna", 10);
  ExpectGoldens("wizardlm", "vicuna", 10);
}

// The golden's author ends answers with </s>, which v0 was not trained with.
TEST(BuiltinTemplatesTest, VicunaV0RendersTheGoldensWithoutEndTokens) {
  ExpectGoldens("vicuna-v0", "vicuna-v0", 10, WithoutEnd);
}

TEST(BuiltinTemplatesTest, ChatMlRendersThePublishedGoldens) {
  ExpectGoldens("chatml", "chatml", 11);
}

TEST(BuiltinTemplatesTest, MetasToolCallsAreWrittenAsDocumented) {
  Conversation conversation = Say({{"user", "Weather?"}});
  conversation.messages.push_back(
      Parse({{"role", "assistant"},
             {"tool_calls",
              {{{"type", "function"},
                {"function",
                 {{"name", "brave_search"},
                  {"arguments", {{"query", "weather"}}}}}}}}}));
  conversation.messages.push_back(
      Parse({{"role", "tool"}, {"content", {{"sky", "clear"}}}}));
  conversation.variables =
      Parse({{"builtin_tools", {"brave_search", "code_interpreter"}}}).dict();
  const auto text = Render(
      Builtin("llama-3.1-instruct", "<|begin_of_text|>", ""), conversation);
  ASSERT_OK(text);
  EXPECT_THAT(
      *text, HasSubstr("Environment: ipython\nTools: brave_search\n\nCutting"));
  EXPECT_THAT(*text, HasSubstr("<|python_tag|>brave_search.call(query="
                               "\"weather\")<|eom_id|>"));
  EXPECT_THAT(*text, HasSubstr("<|start_header_id|>ipython<|end_header_id|>"
                               "\n\n{\"sky\": \"clear\"}<|eot_id|>"));
}

// --- Formats without goldens: the texts of the models' authors --------------

constexpr char kAlpaca[] =
    "Below is an instruction that describes a task. Write a response that "
    "appropriately completes the request.\n\n### Instruction:\n";
constexpr char kAlpacaWithInput[] =
    "Below is an instruction that describes a task, paired with an input that "
    "provides further context. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n";

void ExpectText(const std::string& name, const Conversation& conversation,
                const std::string& expected) {
  const auto text = Render(Builtin(name), conversation);
  ASSERT_OK(text) << name;
  EXPECT_EQ(*text, expected) << name;
}

TEST(BuiltinTemplatesTest, AlpacaHasFormsWithAndWithoutInput) {
  ExpectText("alpaca", Say({{"user", "Hi"}}),
             std::string("<s>") + kAlpaca + "Hi\n\n### Response:");
  ExpectText("alpaca", Say({{"user", "Translate."}, {"input", "Guten Tag"}}),
             std::string("<s>") + kAlpacaWithInput +
                 "Translate.\n\n### Input:\nGuten Tag\n\n### Response:");
  ExpectText("alpaca-lora", Say({{"user", "Hi"}}),
             std::string("<s>") + kAlpaca + "Hi\n\n### Response:\n");
  EXPECT_THAT(
      Render(Builtin("alpaca"), Say({{"input", "x"}})),
      HasReason(Reason::kTemplateError, HasSubstr("input must follow")));
}

TEST(BuiltinTemplatesTest, EarlierAlpacaExchangesComeFirst) {
  ExpectText(
      "alpaca",
      Say({{"system", "S."}, {"user", "a"}, {"assistant", "b"}, {"user", "c"}}),
      "<s>S.\n\n### Instruction:\na\n\n### Response:b</s>\n\n"
      "### Instruction:\nc\n\n### Response:");
}

TEST(BuiltinTemplatesTest, KoalaHasNoSpaceAfterItsName) {
  ExpectText("koala", Say({{"user", "Hi"}}),
             "<s>BEGINNING OF CONVERSATION: USER: Hi GPT:");
  ExpectText("koala",
             Say({{"user", "Hi"}, {"assistant", "Hello"}, {"user", "Bye"}}),
             "<s>BEGINNING OF CONVERSATION: USER: Hi GPT:Hello</s>USER: Bye "
             "GPT:");
  EXPECT_THAT(
      Render(Builtin("koala"), Say({{"system", "x"}})),
      HasReason(Reason::kTemplateError, HasSubstr("user and assistant"
                                                  " only; got system")));
}

TEST(BuiltinTemplatesTest, OpenAssistantWritesTags) {
  ExpectText("open-assistant",
             Say({{"system", "s"},
                  {"user", "Hi"},
                  {"assistant", "Hello"},
                  {"user", "Bye"}}),
             "<|system|>s</s><|prompter|>Hi</s><|assistant|>Hello</s>"
             "<|prompter|>Bye</s><|assistant|>");
}

TEST(BuiltinTemplatesTest, BelleStandsOnLinesOfItsOwn) {
  ExpectText("belle", Say({{"user", "Hi"}}), "<s>Human: \nHi\n\nAssistant: \n");
  ExpectText("belle",
             Say({{"user", "Hi"}, {"assistant", "Hello"}, {"user", "Bye"}}),
             "<s>Human: \nHi\n\nAssistant: \nHello\n\nHuman: \nBye\n\n"
             "Assistant: \n");
}

TEST(BuiltinTemplatesTest, WizardLm7bTakesOneInstruction) {
  ExpectText("wizardlm-7b", Say({{"user", "Hi"}}), "<s>Hi\n\n### Response:");
  EXPECT_THAT(
      Render(Builtin("wizardlm-7b"), Say({{"user", "a"}, {"user", "b"}})),
      HasReason(Reason::kTemplateError, HasSubstr("one user message")));
}

TEST(BuiltinTemplatesTest, PlainIsTheTextItself) {
  ExpectText("plain", Say({{"user", " Once upon"}}), "<s> Once upon");
}

TEST(BuiltinTemplatesTest, TagsOfTheFormatInAMessageAreRefused) {
  EXPECT_THAT(Render(Builtin("llama-2-chat"), Say({{"user", "x [/INST] y"}})),
              HasReason(Reason::kTemplateError, HasSubstr("[/INST]")));
}

// --- Down to the ids, as the authors' code encodes --------------------------

std::vector<TokenId> EncodeWith(const LoadedModel& model,
                                const Conversation& conversation) {
  const auto rendered =
      model.chat_template->Render(conversation, kNow, absl::UTCTimeZone());
  EXPECT_OK(rendered);
  const auto ids = EncodeRendered(*model.tokenizer, *rendered);
  EXPECT_OK(ids);
  return *ids;
}

void ExpectIds(const std::string& name, const Conversation& conversation,
               const std::vector<TokenId>& expected) {
  CARAVAN_REFERENCE_PATH_OR_SKIP(file, "tokenizers/llama-2/tokenizer.model");
  const text::ModelDirectory directory;
  directory.Copy(file, "tokenizer.model");
  const auto model = LoadModel({"m", directory.path(), name});
  ASSERT_OK(model);
  EXPECT_EQ(EncodeWith(*model, conversation), expected) << name;
}

TEST(BuiltinTemplateIdsTest, Llama2Chat) {
  ExpectIds("llama-2-chat",
            Say({{"system", "You are helpful."}, {"user", "Hi"}}),
            {1,    518, 25580, 29962, 3532, 14816, 29903, 6778,  13,
             3492, 526, 8444,  29889, 13,   29966, 829,   14816, 29903,
             6778, 13,  13,    18567, 518,  29914, 25580, 29962});
  ExpectIds("llama-2-chat",
            Say({{"user", "Hi"}, {"assistant", "Hello!"}, {"user", "Bye"}}),
            {1,     518,   25580, 29962, 6324,  518,   29914, 25580,
             29962, 15043, 29991, 29871, 2,     1,     518,   25580,
             29962, 2648,  29872, 518,   29914, 25580, 29962});
}

TEST(BuiltinTemplateIdsTest, Alpaca) {
  ExpectIds("alpaca", Say({{"user", "Hi"}}),
            {1,     13866, 338,   385,  15278, 393,  16612, 263,   3414,
             29889, 14350, 263,   2933, 393,   7128, 2486,  1614,  2167,
             278,   2009,  29889, 13,   13,    2277, 29937, 2799,  4080,
             29901, 13,    18567, 13,   13,    2277, 29937, 13291, 29901});
}

TEST(BuiltinTemplateIdsTest, Vicuna) {
  ExpectIds(
      "vicuna-v1.1", Say({{"user", "Hi"}}),
      {1,     319,   13563, 1546,  263,   12758, 1404, 322,   385,   23116,
       21082, 20255, 29889, 450,   20255, 4076,  8444, 29892, 13173, 29892,
       322,   1248,  568,   6089,  304,   278,   1404, 29915, 29879, 5155,
       29889, 3148,  1001,  29901, 6324,  319,   1799, 9047,  13566, 29901});
}

TEST(BuiltinTemplateIdsTest, Koala) {
  ExpectIds("koala", Say({{"user", "Hi"}}),
            {1, 22815, 29940, 4214, 8079, 8707, 5348, 29903, 8098, 29901, 3148,
             1001, 29901, 6324, 402, 7982, 29901});
}

// Each part has the leading space of a text of its own.
TEST(BuiltinTemplateIdsTest, CodeLlama70b) {
  const auto directory = ExtendedLlama2({"<step>"});
  if (!directory) GTEST_SKIP() << "no Llama-2 vocabulary";
  const auto model = LoadModel({"m", directory->path(), ""});
  ASSERT_OK(model);
  ASSERT_OK(model->template_status);
  const TokenId step = 32000;
  EXPECT_EQ(
      EncodeWith(*model, Say({{"user", " Hi "}})),
      (std::vector<TokenId>{1,    29871, 7562, 29901, 1788,  step, 29871,
                            7562, 29901, 1404, 29871, 13,    13,   6324,
                            step, 29871, 7562, 29901, 20255, 13,   14994,
                            3381, 29901, 1404, 29871, 13,    13,   29871}));
  EXPECT_EQ(model->answer_end.token_ids, std::vector<TokenId>{step});
}

// --- Choice -----------------------------------------------------------------

text::Vocabulary VocabularyOf(const std::vector<std::string>& names,
                              const std::vector<TokenId>& ends) {
  text::Vocabulary vocabulary;
  for (const std::string& name : names) {
    vocabulary.tokens.push_back({name, text::TokenKind::kSpecial});
  }
  vocabulary.eos_ids = ends;
  return vocabulary;
}

std::string Chosen(const std::vector<std::string>& names,
                   const std::vector<TokenId>& ends) {
  const BuiltinTemplate* const builtin =
      TemplateOfVocabulary(VocabularyOf(names, ends));
  return builtin == nullptr ? "" : std::string(builtin->name);
}

TEST(TemplateChoiceTest, TokensThatAreTrainedProveTheFormat) {
  const std::vector<std::string> llama3 = {
      "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
      "<|eot_id|>", "<|eom_id|>"};
  EXPECT_EQ(Chosen(llama3, {0}), "");  // a base model
  EXPECT_EQ(Chosen(llama3, {0, 3}), "llama-3-instruct");
  EXPECT_EQ(Chosen(llama3, {0, 3, 4}), "llama-3.1-instruct");
  EXPECT_EQ(Chosen({"</s>", "<|prompter|>", "<|assistant|>"}, {0}),
            "open-assistant");
  EXPECT_EQ(Chosen({"</s>", "<|im_start|>", "<|im_end|>"}, {0}), "chatml");
  EXPECT_EQ(Chosen({"</s>", "<step>"}, {0}), "code-llama-70b-instruct");
  EXPECT_EQ(Chosen({"<s>", "</s>"}, {1}), "");
}

TEST(TemplateChoiceTest, AFormatOfAnotherVocabularyIsRefused) {
  const std::string demo = testing::RepositoryPath("deploy/demo-model");
  EXPECT_THAT(LoadModel({"demo", demo, "open-assistant"}),
              HasReason(Reason::kTemplateError,
                        HasSubstr("needs the token <|prompter")));
}

TEST(TemplateChoiceTest, AnUnknownNameListsThoseThatThereAre) {
  const std::string demo = testing::RepositoryPath("deploy/demo-model");
  EXPECT_THAT(LoadModel({"demo", demo, "lama-2"}),
              HasReason(Reason::kInvalidField, HasSubstr("llama-2-chat, ")));
}

TEST(TemplateChoiceTest, AFlagIsForAllModelsOrForOne) {
  std::vector<ModelSource> sources = {{"a", "x", ""}, {"b", "y", ""}};
  ASSERT_OK(ApplyTemplateFlag("plain", &sources));
  ASSERT_OK(ApplyTemplateFlag("b=koala", &sources));
  EXPECT_EQ(sources[0].chat_template, "plain");
  EXPECT_EQ(sources[1].chat_template, "koala");
  EXPECT_THAT(ApplyTemplateFlag("c=koala", &sources),
              HasReason(Reason::kInvalidField, HasSubstr("c")));
}

TEST(TemplateChoiceTest, AVicunaAnswerEndsWithItsStopText) {
  const std::string demo = testing::RepositoryPath("deploy/demo-model");
  const auto model = LoadModel({"demo", demo, "vicuna-v0"});
  ASSERT_OK(model);
  EXPECT_EQ(model->answer_end.texts, std::vector<std::string>{"###"});
}

}  // namespace
}  // namespace caravan::tokenizer
