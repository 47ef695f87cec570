// caravan tokenize: the ids of a text, their pieces and byte offsets; or the
// text of ids.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "common/json.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/incremental_decoder.h"
#include "services/cli/commands.h"
#include "services/cli/text_model.h"

namespace caravan::cli {
namespace {

struct TokenizeOptions {
  TextModelOptions model;
  std::string text;
  std::string file;                   // "-": standard input
  std::vector<text::TokenId> decode;  // ids: the other direction
  std::string suffix;                 // fill in between the text and this
  bool suffix_first = false;
  bool no_special = false;
  bool allow_special = false;
  bool ids_only = false;
  bool json = false;
};

absl::Status Decode(const TokenizeOptions& options, TextModel& model) {
  CARAVAN_ASSIGN_OR_RETURN(const text::Vocabulary vocabulary,
                           model.GetVocabulary());
  for (const text::TokenId id : options.decode) {
    if (id >= 0 && id < vocabulary.size()) continue;
    return FieldError("--decode", StrCat("in [0, ", vocabulary.size(), ")"),
                      StrCat(id));
  }
  const std::string text = text::Decode(vocabulary, options.decode,
                                        /*skip_special_tokens=*/false);
  if (options.json) {
    std::cout << DumpJson(nlohmann::json{{"text", text}}) << "\n";
  } else {
    std::cout << text << "\n";
  }
  return absl::OkStatus();
}

v1::PrepareInput InputOf(const TokenizeOptions& options,
                         const std::string& text) {
  v1::PrepareInput input;
  if (options.suffix.empty()) {
    input.set_text(text);
    input.set_add_special_tokens(!options.no_special);
    input.set_allow_special_tokens(options.allow_special);
    return input;
  }
  v1::Infill& infill = *input.mutable_infill();
  infill.set_prefix(text);
  infill.set_suffix(options.suffix);
  if (options.suffix_first) {
    infill.set_order(v1::INFILL_ORDER_SUFFIX_PREFIX_MIDDLE);
  }
  return input;
}

void PrintIds(const v1::PreparedPrompt& prompt) {
  std::string line;
  for (const text::TokenId id : prompt.token_ids()) {
    StrAppend(&line, line.empty() ? "" : " ", id);
  }
  std::cout << line << "\n";
}

absl::Status RunTokenize(const TokenizeOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<TextModel> model,
                           TextModel::Open(options.model));
  if (!options.decode.empty()) return Decode(options, *model);
  std::string text = options.text;
  if (!options.file.empty()) {
    CARAVAN_ASSIGN_OR_RETURN(text, ReadInput("--file", options.file));
  }
  CARAVAN_ASSIGN_OR_RETURN(const v1::PreparedPrompt prompt,
                           model->Prepare(InputOf(options, text)));
  if (options.ids_only) {
    PrintIds(prompt);
    return absl::OkStatus();
  }
  CARAVAN_ASSIGN_OR_RETURN(const text::Vocabulary vocabulary,
                           model->GetVocabulary());
  // Offsets count from the beginning of what the model reads, in its order.
  const std::string shown =
      options.suffix_first ? options.suffix + text : text + options.suffix;
  if (options.json) {
    std::cout << TokenJson(shown, prompt, vocabulary) << "\n";
  } else {
    std::cout << TokenTable(shown, prompt, vocabulary);
  }
  return absl::OkStatus();
}

}  // namespace

Command AddTokenize(CLI::App& root) {
  CLI::App* app = root.add_subcommand(
      "tokenize", "Ids, pieces and byte offsets of a text; or text of ids");
  const auto options = std::make_shared<TokenizeOptions>();
  AddTextModelFlags(*app, options->model);
  CLI::Option* const text = app->add_option("TEXT", options->text, "The text");
  CLI::Option* const file =
      app->add_option("--file", options->file, "Read the text here (-: stdin)")
          ->excludes(text);
  app->add_option("--decode", options->decode, "Ids to turn into text")
      ->delimiter(',')
      ->excludes(text)
      ->excludes(file);
  app->add_option("--suffix", options->suffix,
                  "The prompt to fill in between the text and this");
  app->add_flag("--suffix-first", options->suffix_first,
                "In that prompt the suffix comes first");
  app->add_flag("--no-special", options->no_special, "Add no BOS");
  app->add_flag("--allow-special", options->allow_special,
                "Recognise names of special tokens in the text");
  CLI::Option* const ids =
      app->add_flag("--ids", options->ids_only, "Print ids only");
  app->add_flag("--json", options->json, "Print JSON")->excludes(ids);
  return {app, [options] { return RunTokenize(*options); }};
}

}  // namespace caravan::cli
