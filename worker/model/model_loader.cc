#include "worker/model/model_loader.h"

#include <map>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/checkpoint_tensors.h"
#include "worker/model/layout.h"
#include "worker/model/quantization_config.h"
#include "worker/model/weights_policy.h"

namespace caravan::worker {
namespace {

// The checkpoint with its matrices in the types in which they are kept.
absl::StatusOr<std::unique_ptr<CheckpointTensors>> OpenCheckpoint(
    const std::string& directory, const ModelOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const WeightsPolicy policy,
                           WeightsPolicy::Parse(options.weights));
  CARAVAN_ASSIGN_OR_RETURN(std::unique_ptr<CheckpointTensors> checkpoint,
                           CheckpointTensors::Open(directory));
  if (policy.keeps()) return checkpoint;
  CARAVAN_ASSIGN_OR_RETURN(const ModelConfig config,
                           LoadModelConfig(directory, options.overrides));
  ApplyPolicy(policy, config, options.threads, checkpoint.get());
  return checkpoint;
}

// Null where there are no weights.
absl::StatusOr<std::unique_ptr<CheckpointTensors>> OpenWeights(
    const std::string& directory, const ModelOptions& options) {
  auto checkpoint = OpenCheckpoint(directory, options);
  if (absl::IsNotFound(checkpoint.status())) {
    return std::unique_ptr<CheckpointTensors>();
  }
  return checkpoint;
}

// The type in which the layers' matrices lie by quantization_config, if it is
// of codes. Not FBGEMM's: which matrices those are is said in words.
absl::StatusOr<std::optional<WeightType>> TableType(
    const std::string& directory) {
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<QuantizationConfig> config,
                           LoadQuantizationConfig(directory));
  std::optional<WeightType> type;
  if (config && (config->method == QuantizationMethod::kFp8 ||
                 config->method == QuantizationMethod::kCompressedTensors)) {
    type = WeightType::kFp8;
  }
  if (config && config->method == QuantizationMethod::kBitsandbytes &&
      config->bits == 4) {
    type = config->table;
  }
  return type;
}

// By name, the types of a configuration's tensors where there are no weights.
absl::StatusOr<TensorTypes> PlannedTypes(const std::string& directory,
                                         ModelConfig config,
                                         const std::string& weights) {
  CARAVAN_ASSIGN_OR_RETURN(const WeightsPolicy policy,
                           WeightsPolicy::Parse(weights));
  CARAVAN_ASSIGN_OR_RETURN(const std::optional<WeightType> table,
                           TableType(directory));
  config.stage = Stage();
  const WeightType plain = FromDType(PlannedDType(config));
  std::map<std::string, WeightType> types;
  for (const TensorSpec& spec : AllTensors(MakeLayout(config))) {
    const bool coded = table && spec.cols > 0 &&
                       spec.cols % InfoOf(*table).elements == 0 &&
                       spec.name.starts_with("model.layers.");
    types[spec.name] =
        policy.TypeFor(spec, config.tied_embeddings, coded ? *table : plain);
  }
  return [types = std::move(types)](const std::string& name) {
    return types.at(name);
  };
}

// The same, of the checkpoint where there is one, which must outlive the
// result.
absl::StatusOr<TensorTypes> TypesOf(const std::string& directory,
                                    const ModelConfig& config,
                                    const std::string& weights,
                                    const CheckpointTensors* checkpoint) {
  if (checkpoint == nullptr) return PlannedTypes(directory, config, weights);
  CARAVAN_ASSIGN_OR_RETURN(const DType dtype, MatrixDType(*checkpoint));
  return [checkpoint, dtype](const std::string& name) {
    return LoadedType(*checkpoint, name, dtype);
  };
}

absl::StatusOr<WeightTypes> WeightTypesOf(const std::string& directory,
                                          ModelConfig config,
                                          const std::string& weights,
                                          const CheckpointTensors* checkpoint) {
  CARAVAN_ASSIGN_OR_RETURN(const TensorTypes type_of,
                           TypesOf(directory, config, weights, checkpoint));
  config.stage = Stage();
  WeightTypes types;
  for (const TensorSpec& tensor : AllTensors(MakeLayout(config))) {
    if (tensor.cols == 0) continue;
    types.Add(type_of(tensor.name));
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
  CARAVAN_ASSIGN_OR_RETURN(
      model.weight_types,
      WeightTypesOf(directory, model.config, options.weights, checkpoint));
  CARAVAN_ASSIGN_OR_RETURN(
      const TensorTypes types,
      TypesOf(directory, model.config, options.weights, checkpoint));
  if (checkpoint != nullptr) model.checkpoint = checkpoint->Describe();
  model.matrices = MatrixShapes(model.config, types, backend);
  model.plan = MakeMemoryPlan(model.config, types, backend, options.memory);
  return model;
}

}  // namespace

absl::StatusOr<WeightTypes> ReadWeightTypes(const std::string& directory,
                                            const ModelOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const ModelConfig config,
                           LoadModelConfig(directory, options.overrides));
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<CheckpointTensors> checkpoint,
                           OpenWeights(directory, options));
  return WeightTypesOf(directory, config, options.weights, checkpoint.get());
}

absl::StatusOr<ModelDescription> DescribeModel(const std::string& directory,
                                               const ModelOptions& options,
                                               const Backend& backend) {
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<CheckpointTensors> checkpoint,
                           OpenWeights(directory, options));
  return Describe(directory, options, backend, checkpoint.get());
}

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(
    const std::string& directory, const ModelOptions& options,
    Backend* backend) {
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<CheckpointTensors> checkpoint,
                           OpenCheckpoint(directory, options));
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
