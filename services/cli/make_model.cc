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
#include "worker/tensor/quantize.h"

namespace caravan::cli {
namespace {

struct MakeModelOptions {
  worker::RandomModelOptions model;
  std::string type = "bf16";
  std::string directory;
};

// Plain types are written as safetensors, the others as GGUF.
absl::Status SetType(const std::string& name,
                     worker::RandomModelOptions& model) {
  const auto type = worker::WeightTypeFromName(name);
  if (!type || !worker::CanQuantize(*type)) {
    return FieldError("--type", StrCat("one of ", worker::WrittenTypes()),
                      name);
  }
  if (const auto dtype = worker::PlainDType(*type)) {
    model.dtype = *dtype;
  } else {
    model.block_type = *type;
  }
  return absl::OkStatus();
}

std::string ShapeList() {
  std::string list;
  for (const std::string_view shape : worker::RandomModelShapes()) {
    StrAppend(&list, list.empty() ? "" : ", ", shape);
  }
  return list;
}

absl::Status RunMakeModel(MakeModelOptions options) {
  CARAVAN_RETURN_IF_ERROR(SetType(options.type, options.model));
  CARAVAN_RETURN_IF_ERROR(
      worker::WriteRandomModel(options.directory, options.model));
  std::cout << options.directory << ": " << options.model.shape << ", "
            << options.type << ", seed " << options.model.seed << "\n";
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
  app->add_option("--type,--dtype", options->type,
                  "Of the matrices; plain ones are written as safetensors, "
                  "others as GGUF: " +
                      worker::WrittenTypes());
  app->add_option("--seed", options->model.seed, "Of the weights");
  app->add_option("--threads", options->model.threads, "Of the writer")
      ->check(CLI::Range(1, 256));
  return {app, [options] { return RunMakeModel(*options); }};
}

}  // namespace caravan::cli
