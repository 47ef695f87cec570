#include "worker/model/model_loader.h"

#include <utility>

#include "absl/status/status.h"
#include "common/status/status_macros.h"
#include "worker/model/checkpoint_tensors.h"

namespace caravan::worker {
namespace {

absl::StatusOr<ModelDescription> Describe(const std::string& directory,
                                          const ModelOptions& options,
                                          const Backend& backend,
                                          const CheckpointTensors* checkpoint) {
  ModelDescription model;
  model.directory = directory;
  CARAVAN_ASSIGN_OR_RETURN(model.config,
                           LoadModelConfig(directory, options.overrides));
  CARAVAN_RETURN_IF_ERROR(CheckStage("--stage", options.stage, model.config));
  model.config.stage = options.stage;
  if (options.use_generation_config) {
    CARAVAN_ASSIGN_OR_RETURN(
        model.generation,
        LoadGenerationConfig(directory, model.config.vocab_size));
  }
  model.eos_ids = model.generation.eos_ids.value_or(model.config.eos_ids);
  if (checkpoint == nullptr) {
    model.dtype = PlannedDType(model.config);
    model.plan =
        MakeMemoryPlan(model.config, model.dtype, backend, options.memory);
    return model;
  }
  CARAVAN_ASSIGN_OR_RETURN(model.dtype, MatrixDType(*checkpoint));
  model.checkpoint = checkpoint->Describe();
  const auto types = [&](const std::string& name) {
    return LoadedType(*checkpoint, name, model.dtype);
  };
  model.plan =
      MakeMemoryPlan(model.config, model.dtype, types, backend, options.memory);
  return model;
}

}  // namespace

absl::StatusOr<ModelDescription> DescribeModel(const std::string& directory,
                                               const ModelOptions& options,
                                               const Backend& backend) {
  const auto checkpoint = CheckpointTensors::Open(directory);
  if (!checkpoint.ok() && !absl::IsNotFound(checkpoint.status())) {
    return checkpoint.status();
  }
  return Describe(directory, options, backend,
                  checkpoint.ok() ? checkpoint->get() : nullptr);
}

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(
    const std::string& directory, const ModelOptions& options,
    Backend* backend) {
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<CheckpointTensors> checkpoint,
                           CheckpointTensors::Open(directory));
  auto model = std::make_unique<LoadedModel>();
  CARAVAN_ASSIGN_OR_RETURN(
      model->description,
      Describe(directory, options, *backend, checkpoint.get()));
  CARAVAN_ASSIGN_OR_RETURN(model->weights,
                           LoadWeights(model->description.config, *checkpoint,
                                       backend, options.progress));
  return model;
}

}  // namespace caravan::worker
