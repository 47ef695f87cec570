// caravan quantize: any checkpoint as a GGUF file.
#include "worker/tensor/quantize.h"

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/cli/commands.h"
#include "worker/model/gguf_export.h"

namespace caravan::cli {
namespace {

struct Options {
  std::string source;
  std::string target;
  std::string type = "q8_0";
  int threads = 1;
};

absl::Status RunQuantize(const Options& options) {
  const auto type = worker::WeightTypeFromName(options.type);
  if (!type || !worker::CanQuantize(*type)) {
    return FieldError("--type", StrCat("one of ", worker::WrittenTypes()),
                      options.type);
  }
  worker::ExportOptions output;
  output.type = *type;
  output.threads = options.threads;
  output.progress = [last = 0](int percent) mutable {
    if (percent < last + 10) return;
    last = percent - percent % 10;
    std::cerr << last << " %\n";
  };
  CARAVAN_ASSIGN_OR_RETURN(
      const worker::ExportReport report,
      worker::ExportGguf(options.source, options.target, output));
  std::cout << options.target << ": " << report.tensors << " tensors, "
            << report.parameters << " parameters, " << report.bytes
            << " bytes, from " << report.format << "\n";
  return absl::OkStatus();
}

}  // namespace

Command AddQuantize(CLI::App& root) {
  CLI::App* app = root.add_subcommand(
      "quantize",
      "Write a checkpoint of any format as a GGUF file with its tokenizer");
  const auto options = std::make_shared<Options>();
  app->add_option("SRC", options->source, "Model directory or GGUF file")
      ->required();
  app->add_option("DST", options->target, "New file, *.gguf")->required();
  app->add_option("--type", options->type, worker::WrittenTypes());
  options->threads = static_cast<int>(
      std::clamp(std::thread::hardware_concurrency(), 1u, 256u));
  app->add_option("--threads", options->threads, "Of the writer")
      ->check(CLI::Range(1, 256));
  return {app, [options] { return RunQuantize(*options); }};
}

}  // namespace caravan::cli
