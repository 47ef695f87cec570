// caravan convert: any checkpoint as plain safetensors.
#include "worker/model/convert.h"

#include <iostream>
#include <memory>
#include <string>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/cli/commands.h"
#include "services/cli/weight_flags.h"

namespace caravan::cli {
namespace {

struct Options {
  std::string source;
  std::string target;
  WeightFlags weights;
};

absl::Status RunConvert(const Options& options) {
  CARAVAN_ASSIGN_OR_RETURN(const worker::ConvertOptions convert,
                           MakeConvertOptions(options.weights));
  CARAVAN_ASSIGN_OR_RETURN(
      const worker::ConvertReport report,
      worker::ConvertCheckpoint(options.source, options.target, convert));
  std::cout << Describe(options.target, report) << "\n";
  return absl::OkStatus();
}

}  // namespace

Command AddConvert(CLI::App& root) {
  CLI::App* app = root.add_subcommand(
      "convert",
      "Write a checkpoint (safetensors, PyTorch or Meta files; GPTQ, AWQ or "
      "bitsandbytes) as plain safetensors in the Hugging Face layout");
  const auto options = std::make_shared<Options>();
  app->add_option("SRC", options->source, "Model directory")->required();
  app->add_option("DST", options->target, "Empty or new directory")->required();
  AddWeightFlags(*app, options->weights);
  return {app, [options] { return RunConvert(*options); }};
}

}  // namespace caravan::cli
