// The `caravan` command.
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>
#include <vector>

#include "common/build_info.h"
#include "common/status/errors.h"
#include "common/strings.h"
#include "services/cli/commands.h"

namespace caravan::cli {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  std::cerr << "caravan: " << ReasonName(ReasonOf(status)) << ": "
            << ToStd(status.message()) << "\n";
  for (const auto& [field, description] : FieldViolationsOf(status)) {
    if (status.message().find(ToAbsl(description)) == absl::string_view::npos) {
      std::cerr << "  " << field << ": " << description << "\n";
    }
  }
  return absl::IsInvalidArgument(status) ? kExitUsage : kExitFailure;
}

int Main(int argc, char** argv) {
  CLI::App app("Serves Llama-family models over gRPC", "caravan");
  app.set_version_flag("--version", std::string(BuildId()));
  app.require_subcommand(1);
  std::vector<Command> commands;
  for (const auto add :
       {AddUp, AddGenerate, AddChat, AddScore, AddPlan, AddWorkers,
        AddMakeModel, AddBench, AddHealth, AddReplay, AddTokenize, AddRender,
        AddConvert, AddQuantize, AddApplyDelta}) {
    commands.push_back(add(app));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : kExitUsage;
  }
  for (const Command& command : commands) {
    if (command.app->parsed()) return ExitCode(command.run());
  }
  return kExitUsage;
}

}  // namespace
}  // namespace caravan::cli

int main(int argc, char** argv) { return caravan::cli::Main(argc, argv); }
