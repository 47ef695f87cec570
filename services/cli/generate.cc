// caravan generate: one request, streamed to standard output.
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <vector>

#include "absl/strings/escaping.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/cli/commands.h"
#include "services/cli/gateway_client.h"
#include "services/cli/generation_flags.h"

namespace caravan::cli {
namespace {

struct GenerateOptions {
  ClientOptions client;
  GenerationFlags generation;
  std::string prompt;
  std::string prompt_file;  // "-": standard input
  std::vector<int32_t> token_ids;
  std::string chat;
  int32_t n = 1;
  bool echo = false;
  bool show_usage = false;
  std::string receipt_file;
};

absl::StatusOr<std::string> ReadPrompt(const std::string& path) {
  std::ostringstream text;
  if (path == "-") {
    text << std::cin.rdbuf();
    return text.str();
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return FieldError("--prompt-file", "a readable file", path);
  text << file.rdbuf();
  return text.str();
}

absl::StatusOr<v1::GenerateRequest> MakeRequest(
    const GenerateOptions& options) {
  v1::GenerateRequest request;
  ApplyGenerationFlags(options.generation, request);
  request.set_n(options.n);
  request.mutable_output()->set_echo(options.echo);
  if (!options.chat.empty()) {
    v1::ChatMessage& message = *request.mutable_chat()->add_messages();
    message.set_role("user");
    message.add_content()->set_text(options.chat);
  } else if (!options.token_ids.empty()) {
    request.mutable_token_ids()->mutable_token_ids()->Add(
        options.token_ids.begin(), options.token_ids.end());
  } else if (!options.prompt_file.empty()) {
    CARAVAN_ASSIGN_OR_RETURN(*request.mutable_text(),
                             ReadPrompt(options.prompt_file));
  } else {
    request.set_text(options.prompt);
  }
  return request;
}

// Prints one choice as it comes and keeps several for the end, where their
// texts would mix.
class TextPrinter {
 public:
  explicit TextPrinter(int32_t n) : texts_(static_cast<size_t>(n)) {}

  void Add(const v1::Delta& delta) {
    if (texts_.size() == 1) {
      std::cout << delta.text() << std::flush;
    } else if (static_cast<size_t>(delta.choice()) < texts_.size()) {
      texts_[static_cast<size_t>(delta.choice())] += delta.text();
    }
  }

  void Finish() {
    if (texts_.size() > 1) {
      for (size_t i = 0; i < texts_.size(); ++i) {
        std::cout << "--- choice " << i << "\n" << texts_[i] << "\n";
      }
    } else {
      std::cout << "\n";
    }
    std::cout << std::flush;
  }

 private:
  std::vector<std::string> texts_;
};

absl::Status WriteReceipt(const std::string& path, const std::string& bytes) {
  std::ofstream file(path);
  file << absl::Base64Escape(bytes) << "\n";
  if (file.flush()) return absl::OkStatus();
  return FieldError("--receipt", "a file that can be written", path);
}

void PrintUsage(uint64_t seed, const v1::Usage& usage) {
  std::cerr << "prompt " << usage.prompt_token_count() << " tokens ("
            << usage.cached_token_count() << " cached), output "
            << usage.output_token_count() << " tokens, seed " << seed << "\n";
}

absl::Status RunGenerate(const GenerateOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const v1::GenerateRequest request,
                           MakeRequest(options));
  CARAVAN_ASSIGN_OR_RETURN(const auto client,
                           GatewayClient::Create(options.client));
  TextPrinter printer(options.n);
  v1::Finished finished;
  uint64_t seed = 0;
  const absl::Status status =
      client->Generate(request, [&](const v1::GenerateResponse& event) {
        if (event.has_started()) seed = event.started().seed();
        if (event.has_delta()) printer.Add(event.delta());
        if (event.has_finished()) finished = event.finished();
      });
  printer.Finish();
  CARAVAN_RETURN_IF_ERROR(status);
  if (options.show_usage) PrintUsage(seed, finished.usage());
  if (options.receipt_file.empty()) return absl::OkStatus();
  return WriteReceipt(options.receipt_file, finished.receipt());
}

}  // namespace

Command AddGenerate(CLI::App& root) {
  CLI::App* app =
      root.add_subcommand("generate", "Generate text for one prompt");
  const auto options = std::make_shared<GenerateOptions>();
  AddClientFlags(*app, options->client, "--gateway", "127.0.0.1:8081");
  AddGenerationFlags(*app, options->generation);
  CLI::Option_group* prompt = app->add_option_group("prompt");
  prompt->add_option("--prompt", options->prompt, "Text to continue");
  prompt->add_option("--prompt-file", options->prompt_file,
                     "File to continue (-: standard input)");
  prompt->add_option("--token-ids", options->token_ids, "Ids, by comma")
      ->delimiter(',');
  prompt->add_option("--chat", options->chat, "A user's message to answer");
  prompt->require_option(1);
  app->add_option("-n", options->n, "Choices")->check(CLI::Range(1, 16));
  app->add_flag("--echo", options->echo, "Print the prompt too");
  app->add_flag("--usage", options->show_usage,
                "Print token counts at the end");
  app->add_option("--receipt", options->receipt_file,
                  "Write the receipt (base64) to this file");
  return {app, [options] { return RunGenerate(*options); }};
}

}  // namespace caravan::cli
