// caravan make-model: a model with random weights.
#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/cli/commands.h"
#include "worker/model/random_model.h"

namespace caravan::cli {
namespace {

struct MakeModelOptions {
  worker::RandomModelOptions model;
  std::string dtype = "bf16";
  std::string directory;
};

absl::StatusOr<worker::DType> ParseDType(const std::string& name) {
  if (name == "fp32") return worker::DType::kFp32;
  if (name == "bf16") return worker::DType::kBf16;
  if (name == "fp16") return worker::DType::kFp16;
  return FieldError("--dtype", "fp32, bf16 or fp16", name);
}

std::string ShapeList() {
  std::string list;
  for (const std::string_view shape : worker::RandomModelShapes()) {
    StrAppend(&list, list.empty() ? "" : ", ", shape);
  }
  return list;
}

absl::Status RunMakeModel(MakeModelOptions options) {
  CARAVAN_ASSIGN_OR_RETURN(options.model.dtype, ParseDType(options.dtype));
  CARAVAN_RETURN_IF_ERROR(
      worker::WriteRandomModel(options.directory, options.model));
  std::cout << options.directory << ": " << options.model.shape << ", "
            << options.dtype << ", seed " << options.model.seed << "\n";
  return absl::OkStatus();
}

}  // namespace

Command AddMakeModel(CLI::App& root) {
  CLI::App* app = root.add_subcommand(
      "make-model", "Write a model with random weights and a tokenizer");
  const auto options = std::make_shared<MakeModelOptions>();
  options->model.threads = static_cast<int>(
      std::clamp(std::thread::hardware_concurrency(), 1u, 256u));
  app->add_option("OUT", options->directory, "Empty or new directory")
      ->required();
  app->add_option("--shape", options->model.shape, ShapeList());
  app->add_option("--dtype", options->dtype, "fp32, bf16 or fp16");
  app->add_option("--seed", options->model.seed, "Of the weights");
  app->add_option("--threads", options->model.threads, "Of the writer")
      ->check(CLI::Range(1, 256));
  return {app, [options] { return RunMakeModel(*options); }};
}

}  // namespace caravan::cli
