// The subcommands of `caravan`, one file each.
#ifndef CARAVAN_SERVICES_CLI_COMMANDS_H_
#define CARAVAN_SERVICES_CLI_COMMANDS_H_

#include <CLI/CLI.hpp>
#include <functional>

#include "absl/status/status.h"

namespace caravan::cli {

// A subcommand: `app` has its flags; `run` does the work after they are
// parsed, and its status becomes the exit code.
struct Command {
  CLI::App* app;
  std::function<absl::Status()> run;
};

Command AddUp(CLI::App& root);          // up.cc
Command AddGenerate(CLI::App& root);    // generate.cc
Command AddChat(CLI::App& root);        // chat.cc
Command AddScore(CLI::App& root);       // score.cc
Command AddPlan(CLI::App& root);        // plan.cc
Command AddWorkers(CLI::App& root);     // workers.cc
Command AddMakeModel(CLI::App& root);   // make_model.cc
Command AddBench(CLI::App& root);       // bench.cc
Command AddHealth(CLI::App& root);      // health.cc
Command AddReplay(CLI::App& root);      // replay.cc
Command AddTokenize(CLI::App& root);    // tokenize.cc
Command AddRender(CLI::App& root);      // render.cc
Command AddConvert(CLI::App& root);     // convert.cc
Command AddQuantize(CLI::App& root);    // quantize.cc
Command AddApplyDelta(CLI::App& root);  // apply_delta.cc

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_COMMANDS_H_
