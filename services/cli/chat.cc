// caravan chat: a conversation in the terminal.
#include <unistd.h>

#include <iostream>
#include <memory>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/cli/commands.h"
#include "services/cli/gateway_client.h"
#include "services/cli/generation_flags.h"

namespace caravan::cli {
namespace {

constexpr std::string_view kHelp =
    "/reset forgets the conversation, /system TEXT begins one with a system "
    "message, /undo forgets the last turn, /quit ends.\n";

struct ChatOptions {
  ClientOptions client;
  GenerationFlags generation;
  std::string system;
};

// The conversation so far.
class Conversation {
 public:
  explicit Conversation(const std::string& system) { Reset(system); }

  void Reset(const std::string& system) {
    chat_.Clear();
    if (!system.empty()) Add("system", system);
  }

  void Add(const std::string& role, const std::string& text) {
    v1::ChatMessage& message = *chat_.add_messages();
    message.set_role(role);
    message.add_content()->set_text(text);
  }

  // Forgets what came after the last user message, and that.
  void DropTurn() {
    while (chat_.messages_size() > 0) {
      const std::string role = chat_.messages().rbegin()->role();
      if (role == "system") return;
      chat_.mutable_messages()->RemoveLast();
      if (role == "user") return;
    }
  }

  const v1::ChatInput& chat() const { return chat_; }

 private:
  v1::ChatInput chat_;
};

// Streams the answer to standard output and returns it.
absl::StatusOr<std::string> Answer(const ChatOptions& options,
                                   const Conversation& conversation,
                                   GatewayClient& client) {
  v1::GenerateRequest request;
  ApplyGenerationFlags(options.generation, request);
  *request.mutable_chat() = conversation.chat();
  std::string text;
  const absl::Status status =
      client.Generate(request, [&](const v1::GenerateResponse& event) {
        text += event.delta().text();
        std::cout << event.delta().text() << std::flush;
      });
  std::cout << "\n";
  CARAVAN_RETURN_IF_ERROR(status);
  return text;
}

// False when the conversation is over.
bool HandleCommand(const std::string& line, Conversation& conversation) {
  if (line == "/quit" || line == "/exit") return false;
  if (line == "/reset") {
    conversation.Reset("");
  } else if (line == "/undo") {
    conversation.DropTurn();
  } else if (line.rfind("/system ", 0) == 0) {
    conversation.Reset(line.substr(8));
  } else {
    std::cout << kHelp;
  }
  return true;
}

void TakeTurn(const ChatOptions& options, const std::string& line,
              Conversation& conversation, GatewayClient& client) {
  conversation.Add("user", line);
  const auto answer = Answer(options, conversation, client);
  if (answer.ok()) {
    conversation.Add("assistant", *answer);
    return;
  }
  std::cerr << ReasonName(ReasonOf(answer.status())) << ": "
            << ToStd(answer.status().message()) << "\n";
  conversation.DropTurn();
}

absl::Status RunChat(const ChatOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const auto client,
                           GatewayClient::Create(options.client));
  const bool interactive = isatty(STDIN_FILENO) == 1;
  if (interactive) std::cout << kHelp;
  Conversation conversation(options.system);
  std::string line;
  while (true) {
    if (interactive) std::cout << "> " << std::flush;
    if (!std::getline(std::cin, line)) return absl::OkStatus();
    if (line.empty()) continue;
    if (line.front() == '/') {
      if (!HandleCommand(line, conversation)) return absl::OkStatus();
      continue;
    }
    TakeTurn(options, line, conversation, *client);
  }
}

}  // namespace

Command AddChat(CLI::App& root) {
  CLI::App* app = root.add_subcommand("chat", "Talk with a model");
  const auto options = std::make_shared<ChatOptions>();
  AddClientFlags(*app, options->client, "--gateway", "127.0.0.1:8081");
  AddGenerationFlags(*app, options->generation);
  app->add_option("--system", options->system, "System message");
  return {app, [options] { return RunChat(*options); }};
}

}  // namespace caravan::cli
