// caravan render: what a chat template makes of a conversation.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "common/json.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "gateway/backend/tokenizer_client.h"
#include "gateway/openai/chat_translate.h"
#include "services/cli/commands.h"
#include "services/cli/text_model.h"
#include "services/tokenizer/builtin_templates.h"

namespace caravan::cli {
namespace {

using Json = nlohmann::ordered_json;

struct RenderOptions {
  TextModelOptions model;
  std::string messages;  // a file; "-": standard input
  std::string system;
  std::string user;
  std::string variables;  // of the template, a JSON object
  bool no_generation_prompt = false;
  bool list = false;
  bool show = false;
  bool tokens = false;
  bool json = false;
};

// A chat request, or the array of its messages.
absl::StatusOr<std::string> BodyOf(const RenderOptions& options) {
  if (!options.messages.empty()) {
    CARAVAN_ASSIGN_OR_RETURN(const std::string content,
                             ReadInput("--messages", options.messages));
    const size_t first = content.find_first_not_of(" \t\r\n");
    const bool is_array = first != content.npos && content[first] == '[';
    return is_array ? StrCat("{\"messages\":", content, "}") : content;
  }
  if (options.user.empty()) {
    return FieldError("--messages", "given, or --user", "neither");
  }
  Json messages = Json::array();
  if (!options.system.empty()) {
    messages.push_back({{"role", "system"}, {"content", options.system}});
  }
  messages.push_back({{"role", "user"}, {"content", options.user}});
  return DumpJson(Json{{"messages", messages}});
}

absl::StatusOr<v1::PrepareInput> InputOf(const RenderOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const std::string body, BodyOf(options));
  CARAVAN_ASSIGN_OR_RETURN(const gateway::GenerationRequest request,
                           gateway::openai::TranslateChat(body));
  v1::PrepareInput input = gateway::ToPrepareInput(request.prompts.front());
  v1::Conversation& conversation = *input.mutable_conversation();
  if (options.no_generation_prompt) {
    conversation.set_add_generation_prompt(false);
  }
  conversation.set_template_variables_json(options.variables);
  return input;
}

std::string PromptJson(const v1::PreparedPrompt& prompt) {
  Json json;
  json["rendered"] = prompt.rendered();
  json["token_ids"] = std::vector<int32_t>(prompt.token_ids().begin(),
                                           prompt.token_ids().end());
  json["end_token_ids"] = std::vector<int32_t>(prompt.end_token_ids().begin(),
                                               prompt.end_token_ids().end());
  json["stop_texts"] = std::vector<std::string>(prompt.stop_texts().begin(),
                                                prompt.stop_texts().end());
  return DumpJson(json);
}

absl::Status ShowTemplate(const std::string& name) {
  const auto* const builtin = tokenizer::FindBuiltinTemplate(name);
  if (builtin == nullptr) {
    return FieldError("--chat-template",
                      StrCat("one of ", tokenizer::BuiltinTemplateNames()),
                      name);
  }
  std::cout << builtin->Source();
  return absl::OkStatus();
}

absl::Status RunRender(const RenderOptions& options) {
  if (options.show) return ShowTemplate(options.model.chat_template);
  if (options.list) {
    for (const auto& builtin : tokenizer::BuiltinTemplates()) {
      std::cout << builtin.name << "\n";
    }
    return absl::OkStatus();
  }
  CARAVAN_ASSIGN_OR_RETURN(const v1::PrepareInput input, InputOf(options));
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<TextModel> model,
                           TextModel::Open(options.model));
  CARAVAN_ASSIGN_OR_RETURN(const v1::PreparedPrompt prompt,
                           model->Prepare(input));
  if (options.json) {
    std::cout << PromptJson(prompt) << "\n";
    return absl::OkStatus();
  }
  if (!options.tokens) {
    std::cout << prompt.rendered() << "\n";
    return absl::OkStatus();
  }
  CARAVAN_ASSIGN_OR_RETURN(const text::Vocabulary vocabulary,
                           model->GetVocabulary());
  std::cout << TokenTable(prompt.rendered(), prompt, vocabulary);
  return absl::OkStatus();
}

}  // namespace

Command AddRender(CLI::App& root) {
  CLI::App* app = root.add_subcommand(
      "render", "What a chat template makes of a conversation");
  const auto options = std::make_shared<RenderOptions>();
  AddTextModelFlags(*app, options->model);
  CLI::Option* const messages =
      app->add_option("--messages", options->messages,
                      "JSON file: a chat request, or its messages (-: stdin)");
  app->add_option("--user", options->user, "A user message")
      ->excludes(messages);
  app->add_option("--system", options->system, "A system message")
      ->excludes(messages);
  app->add_option("--variables", options->variables,
                  "JSON object: further variables of the template");
  app->add_flag("--no-generation-prompt", options->no_generation_prompt,
                "Open no assistant turn");
  app->add_flag("--list", options->list, "Names of the built-in templates");
  app->add_flag("--show", options->show, "Source of a built-in template");
  CLI::Option* const tokens = app->add_flag("--tokens", options->tokens,
                                            "Ids, pieces and byte offsets");
  app->add_flag("--json", options->json, "Print JSON")->excludes(tokens);
  return {app, [options] { return RunRender(*options); }};
}

}  // namespace caravan::cli
