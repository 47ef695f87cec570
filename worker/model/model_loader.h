// From a model directory to a model that a runner can run.
#ifndef CARAVAN_WORKER_MODEL_MODEL_LOADER_H_
#define CARAVAN_WORKER_MODEL_MODEL_LOADER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/config.h"
#include "worker/model/generation_config.h"
#include "worker/model/memory_plan.h"
#include "worker/model/weights.h"
#include "worker/ops/backend.h"

namespace caravan::worker {

struct ModelOptions {
  // Each "key=JSON", applied to config.json.
  std::vector<std::string> overrides;
  // Whether generation_config.json is read.
  bool use_generation_config = true;
  // --weights: keep, bf16, fp8, q8_0 or q4_0 (weights_policy.h).
  std::string weights = "keep";
  int threads = 1;  // that convert them
  // What is loaded and planned; "--stage" refuses one that does not exist.
  Stage stage;
  LoadProgress progress;  // may be null
  MemoryPlanOptions memory;
};

// Everything but the weights: enough to plan, and for a worker that computes
// nothing.
struct ModelDescription {
  std::string directory;
  ModelConfig config;
  GenerationConfig generation;
  // Ids that end a choice: generation_config.json's, else config.json's.
  std::vector<int32_t> eos_ids;
  // Of all matrices of all stages, as they are handed to the backend.
  WeightTypes weight_types;
  std::string checkpoint;             // CheckpointTensors::Describe(), or empty
  std::vector<MatrixShape> matrices;  // of the stage, as they will be packed
  MemoryPlan plan;
};

struct LoadedModel {
  ModelDescription description;
  Weights weights;
};

// The types of all matrices of all stages, as a backend is given them: those of
// the checkpoint, or PlannedDType() where there are no weights. Errors are
// those of DescribeModel.
absl::StatusOr<WeightTypes> ReadWeightTypes(const std::string& directory,
                                            const ModelOptions& options);

// Reads the JSON files and, where weights exist, their headers.
absl::StatusOr<ModelDescription> DescribeModel(const std::string& directory,
                                               const ModelOptions& options,
                                               const Backend& backend);

// The same, then loads the weights into the backend, which must outlive the
// model. Errors name file, key or tensor (see config.h, safetensors.h,
// weights.h).
absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(
    const std::string& directory, const ModelOptions& options,
    Backend* backend);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_MODEL_LOADER_H_
