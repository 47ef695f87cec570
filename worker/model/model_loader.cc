#include "worker/model/model_loader.h"

#include <utility>

#include "absl/status/status.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/checkpoint_tensors.h"
#include "worker/model/layout.h"

namespace caravan::worker {
namespace {

// Null where there are no weights.
absl::StatusOr<std::unique_ptr<CheckpointTensors>> OpenWeights(
    const std::string& directory) {
  auto checkpoint = CheckpointTensors::Open(directory);
  if (absl::IsNotFound(checkpoint.status())) {
    return std::unique_ptr<CheckpointTensors>();
  }
  return checkpoint;
}

absl::StatusOr<WeightTypes> WeightTypesOf(ModelConfig config,
                                          const CheckpointTensors* checkpoint) {
  if (checkpoint == nullptr) return WeightTypes(PlannedDType(config));
  CARAVAN_ASSIGN_OR_RETURN(const DType dtype, MatrixDType(*checkpoint));
  config.stage = Stage();
  WeightTypes types;
  for (const TensorSpec& tensor : AllTensors(MakeLayout(config))) {
    if (tensor.cols == 0) continue;
    types.Add(LoadedType(*checkpoint, tensor.name, dtype));
  }
  return types;
}

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
  CARAVAN_ASSIGN_OR_RETURN(model.weight_types,
                           WeightTypesOf(model.config, checkpoint));
  if (checkpoint == nullptr) {
    model.plan = MakeMemoryPlan(model.config, PlannedDType(model.config),
                                backend, options.memory);
    return model;
  }
  CARAVAN_ASSIGN_OR_RETURN(const DType dtype, MatrixDType(*checkpoint));
  model.checkpoint = checkpoint->Describe();
  const auto types = [&](const std::string& name) {
    return LoadedType(*checkpoint, name, dtype);
  };
  model.plan = MakeMemoryPlan(model.config, types, backend, options.memory);
  return model;
}

}  // namespace

absl::StatusOr<WeightTypes> ReadWeightTypes(const std::string& directory,
                                            const ModelOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const ModelConfig config,
                           LoadModelConfig(directory, options.overrides));
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<CheckpointTensors> checkpoint,
                           OpenWeights(directory));
  return WeightTypesOf(config, checkpoint.get());
}

absl::StatusOr<ModelDescription> DescribeModel(const std::string& directory,
                                               const ModelOptions& options,
                                               const Backend& backend) {
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<CheckpointTensors> checkpoint,
                           OpenWeights(directory));
  return Describe(directory, options, backend, checkpoint.get());
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
