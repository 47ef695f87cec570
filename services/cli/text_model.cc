#include "services/cli/text_model.h"

#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "absl/time/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/utf8.h"
#include "services/cli/table.h"
#include "services/cli/token_listing.h"
#include "services/cli/tokenizer_client.h"
#include "services/tokenizer/builtin_templates.h"
#include "services/tokenizer/model_set.h"
#include "services/tokenizer/prepare.h"

namespace caravan::cli {
namespace {

class ModelFiles final : public TextModel {
 public:
  explicit ModelFiles(tokenizer::LoadedModel model)
      : model_(std::move(model)) {}

  absl::StatusOr<v1::PreparedPrompt> Prepare(
      const v1::PrepareInput& input) override {
    const tokenizer::RenderTime time = {absl::Now(), absl::LocalTimeZone()};
    CARAVAN_ASSIGN_OR_RETURN(
        tokenizer::PreparedInput prepared,
        tokenizer::PrepareInput(model_, input, "input", time));
    return std::move(prepared.prompt);
  }
  absl::StatusOr<text::Vocabulary> GetVocabulary() override {
    return model_.tokenizer->vocabulary();
  }

 private:
  const tokenizer::LoadedModel model_;
};

class RunningTokenizer final : public TextModel {
 public:
  RunningTokenizer(ClientOptions client, std::string model)
      : client_(std::move(client)), model_(std::move(model)) {}

  absl::StatusOr<v1::PreparedPrompt> Prepare(
      const v1::PrepareInput& input) override {
    v1::PrepareRequest request;
    request.set_model(model_);
    *request.add_inputs() = input;
    CARAVAN_ASSIGN_OR_RETURN(const v1::PrepareResponse response,
                             cli::Prepare(client_, request));
    if (response.prompts_size() != 1) {
      return MakeError(Reason::kInternal, "the tokenizer answered nothing");
    }
    return response.prompts(0);
  }
  absl::StatusOr<text::Vocabulary> GetVocabulary() override {
    v1::GetVocabularyRequest request;
    request.set_model(model_);
    CARAVAN_ASSIGN_OR_RETURN(const v1::GetVocabularyResponse response,
                             cli::GetVocabulary(client_, request));
    text::Vocabulary vocabulary;
    for (const v1::VocabularyToken& token : response.tokens()) {
      vocabulary.tokens.push_back(
          {token.bytes(), static_cast<text::TokenKind>(token.kind())});
    }
    vocabulary.strip_leading_space = response.decoder().strip_leading_space();
    return vocabulary;
  }

 private:
  const ClientOptions client_;
  const std::string model_;
};

// The given name, or that of the only model.
absl::StatusOr<std::string> NameOfModel(const TextModelOptions& options) {
  if (!options.model.empty()) return options.model;
  CARAVAN_ASSIGN_OR_RETURN(const v1::ListTokenizerModelsResponse response,
                           ListTokenizerModels(options.client));
  if (response.models_size() == 1) return response.models(0).name();
  std::string names;
  for (const v1::TokenizerModel& model : response.models()) {
    StrAppend(&names, names.empty() ? "" : ", ", model.name());
  }
  return FieldError("--model", StrCat("one of ", names), "nothing");
}

// The piece as text; bytes that are no text on their own as "\xE2".
std::string PieceText(const ListedToken& token) {
  if (!text::FirstInvalidUtf8(token.piece)) return token.piece;
  const std::string quoted = Quoted(token.piece);
  return quoted.substr(1, quoted.size() - 2);
}

std::vector<ListedToken> TokensOf(std::string_view text,
                                  const v1::PreparedPrompt& prompt,
                                  const text::Vocabulary& vocabulary) {
  const auto& ids = prompt.token_ids();
  return ListTokens(text,
                    std::span<const text::TokenId>(
                        ids.data(), static_cast<size_t>(ids.size())),
                    vocabulary);
}

}  // namespace

void AddTextModelFlags(CLI::App& app, TextModelOptions& options) {
  app.add_option("--model", options.model,
                 "Model directory or GGUF file; with --tokenizer a name");
  AddClientFlags(app, options.client, "--tokenizer", "");
  app.add_option("--chat-template", options.chat_template,
                 StrCat("File, or one of ", tokenizer::BuiltinTemplateNames()));
}

absl::StatusOr<std::unique_ptr<TextModel>> TextModel::Open(
    const TextModelOptions& options) {
  if (!options.client.address.empty()) {
    if (!options.chat_template.empty()) {
      return FieldError("--chat-template", "given with files only",
                        "--tokenizer too");
    }
    CARAVAN_ASSIGN_OR_RETURN(std::string name, NameOfModel(options));
    return std::make_unique<RunningTokenizer>(options.client, std::move(name));
  }
  if (options.model.empty()) {
    return FieldError("--model", "given, or --tokenizer", "neither");
  }
  InitLog("caravan", "error");
  tokenizer::ModelSource source;
  source.name = options.model;
  source.directory = options.model;
  source.chat_template = options.chat_template;
  CARAVAN_ASSIGN_OR_RETURN(tokenizer::LoadedModel model,
                           tokenizer::LoadModel(source));
  return std::make_unique<ModelFiles>(std::move(model));
}

std::string TokenTable(std::string_view text, const v1::PreparedPrompt& prompt,
                       const text::Vocabulary& vocabulary) {
  Table table({"position", "id", "bytes", "piece"});
  const std::vector<ListedToken> tokens = TokensOf(text, prompt, vocabulary);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const ListedToken& token = tokens[i];
    table.AddRow(
        {StrCat(i), StrCat(token.id),
         StrCat("[", token.begin, ", ", token.end, ")"),
         StrCat(Quoted(token.piece), token.special ? " special" : "")});
  }
  return StrCat(table.ToString(), tokens.size(), " tokens, ", text.size(),
                " bytes\n");
}

std::string TokenJson(std::string_view text, const v1::PreparedPrompt& prompt,
                      const text::Vocabulary& vocabulary) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ListedToken& token : TokensOf(text, prompt, vocabulary)) {
    list.push_back({{"id", token.id},
                    {"piece", PieceText(token)},
                    {"special", token.special},
                    {"begin", token.begin},
                    {"end", token.end}});
  }
  return DumpJson(list);
}

absl::StatusOr<std::string> ReadInput(const std::string& flag,
                                      const std::string& path) {
  std::ostringstream content;
  if (path == "-") {
    content << std::cin.rdbuf();
    return content.str();
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return FieldError(flag, "a readable file", path);
  content << file.rdbuf();
  return content.str();
}

}  // namespace caravan::cli
