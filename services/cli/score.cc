// caravan score: perplexity of a text.
#include <fstream>
#include <iomanip>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/json.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/cli/commands.h"
#include "services/cli/http_session.h"
#include "services/cli/perplexity.h"

namespace caravan::cli {
namespace {

using Json = nlohmann::json;

struct ScoreOptions {
  std::string address = "127.0.0.1:8080";
  std::string api_key;
  std::string model;
  std::string file;
  bool ids = false;
  bool json = false;
  std::optional<int32_t> window;
  std::optional<int32_t> score_from;
  bool whole = false;
};

absl::StatusOr<Json> Call(const HttpTarget& target, const std::string& path,
                          const Json& body) {
  CARAVAN_ASSIGN_OR_RETURN(
      const HttpReply reply,
      PostAndWait(target, path,
                  body.dump(-1, ' ', /*ensure_ascii=*/false,
                            Json::error_handler_t::ignore)));
  CARAVAN_RETURN_IF_ERROR(StatusOfReply(reply));
  Json json = ParseJson(reply.body);
  if (json.is_object()) return json;
  return MakeError(Reason::kInternal, StrCat(path, " answered no JSON object"));
}

Json WithModel(const ScoreOptions& options, Json body) {
  if (!options.model.empty()) body["model"] = options.model;
  return body;
}

absl::StatusOr<std::vector<int32_t>> Tokenize(const ScoreOptions& options,
                                              const HttpTarget& target,
                                              const std::string& text) {
  CARAVAN_ASSIGN_OR_RETURN(
      const Json json,
      Call(target, "/tokenize",
           WithModel(options,
                     {{"prompt", text}, {"add_special_tokens", true}})));
  std::vector<int32_t> ids;
  const auto tokens = json.find("tokens");
  if (tokens == json.end() || !tokens->is_array()) {
    return MakeError(Reason::kInternal, "/tokenize answered no tokens");
  }
  for (const Json& id : *tokens) {
    if (id.is_number_integer()) ids.push_back(id.get<int32_t>());
  }
  return ids;
}

// The natural logprob of each id given those before it; the first has none.
absl::StatusOr<std::vector<double>> Logprobs(const ScoreOptions& options,
                                             const HttpTarget& target,
                                             const std::vector<int32_t>& ids) {
  CARAVAN_ASSIGN_OR_RETURN(const Json json,
                           Call(target, "/v1/completions",
                                WithModel(options, {{"prompt", ids},
                                                    {"max_tokens", 0},
                                                    {"echo", true},
                                                    {"logprobs", 0}})));
  const Json::json_pointer path("/choices/0/logprobs/token_logprobs");
  std::vector<double> values;
  if (json.contains(path)) {
    for (const Json& value : json.at(path)) {
      values.push_back(value.is_number() ? value.get<double>() : 0);
    }
  }
  if (values.size() == ids.size()) return values;
  return MakeError(
      Reason::kInternal,
      StrCat("asked for ", ids.size(), " logprobs and got ", values.size()));
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  std::ostringstream text;
  if (path == "-") {
    text << std::cin.rdbuf();
    return text.str();
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return FieldError("FILE", "a readable file, or -", path);
  text << file.rdbuf();
  return text.str();
}

absl::StatusOr<std::vector<ScoreWindow>> MakeWindows(
    const ScoreOptions& options, const HttpTarget& target) {
  CARAVAN_ASSIGN_OR_RETURN(const std::string text, ReadText(options.file));
  ScoreWindowOptions cut;
  cut.whole = options.whole;
  if (options.window) cut.window = *options.window;
  cut.score_from = options.score_from.value_or(cut.window / 2 + 1);
  std::vector<int32_t> ids;
  if (options.ids) {
    CARAVAN_ASSIGN_OR_RETURN(ids, ParseTokenIds(text));
  } else {
    CARAVAN_ASSIGN_OR_RETURN(ids, Tokenize(options, target, text));
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<int32_t> empty,
                             Tokenize(options, target, ""));
    if (!empty.empty()) cut.bos = empty.front();
  }
  return MakeScoreWindows(ids, cut);
}

void Print(const ScoreOptions& options, size_t windows,
           const PerplexitySum& sum) {
  if (options.json) {
    std::cout << DumpJson(Json{{"windows", windows},
                               {"tokens", sum.count()},
                               {"mean_nll", sum.mean_nll()},
                               {"standard_error", sum.standard_error()},
                               {"perplexity", sum.perplexity()}},
                          2)
              << "\n";
    return;
  }
  std::cout << std::fixed << std::setprecision(4) << "perplexity "
            << sum.perplexity() << "\nmean nll   " << sum.mean_nll() << " +- "
            << sum.standard_error() << " nats per token\nscored     "
            << sum.count() << " tokens in " << windows << " windows\n";
}

absl::Status RunScore(const ScoreOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(HttpTarget target, ParseHttpTarget(options.address));
  target.api_key = options.api_key;
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<ScoreWindow> windows,
                           MakeWindows(options, target));
  PerplexitySum sum;
  for (const ScoreWindow& window : windows) {
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<double> logprobs,
                             Logprobs(options, target, window.ids));
    for (size_t i = static_cast<size_t>(window.score_from); i < logprobs.size();
         ++i) {
      sum.Add(logprobs[i]);
    }
  }
  Print(options, windows.size(), sum);
  return absl::OkStatus();
}

}  // namespace

Command AddScore(CLI::App& root) {
  CLI::App* app =
      root.add_subcommand("score", "Perplexity of a text under a model");
  const auto options = std::make_shared<ScoreOptions>();
  app->add_option("FILE", options->file, "Text (-: standard input)")
      ->required();
  app->add_option("--http", options->address, "HOST:PORT of the gateway's HTTP")
      ->capture_default_str();
  app->add_option("--api-key", options->api_key, "API key")
      ->envname("CARAVAN_API_KEY");
  app->add_option("--model", options->model, "Name of the model");
  app->add_flag("--ids", options->ids, "FILE holds token ids");
  app->add_option("--window", options->window, "Tokens in a window (512)");
  app->add_option("--score-from", options->score_from,
                  "First index in a window that is scored (window / 2 + 1)");
  app->add_flag("--whole", options->whole, "One window of the whole text");
  app->add_flag("--json", options->json, "Print JSON");
  return {app, [options] { return RunScore(*options); }};
}

}  // namespace caravan::cli
