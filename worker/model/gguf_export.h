// Any checkpoint that is read here as one GGUF file of architecture "llama",
// its matrices in a type of choice.
#ifndef CARAVAN_WORKER_MODEL_GGUF_EXPORT_H_
#define CARAVAN_WORKER_MODEL_GGUF_EXPORT_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

struct ExportOptions {
  // Of the matrices: one that CanQuantize(); gguf_plan.h says where another
  // takes its place.
  WeightType type = WeightType::kQ8_0;
  int threads = 1;  // [1, 256]; the bytes do not depend on it
  // Not descending, one call at a time, on any of the threads; may be null.
  std::function<void(int percent)> progress = nullptr;
};

struct ExportReport {
  std::string format;  // of the source: CheckpointTensors::Describe()
  int64_t tensors = 0;
  int64_t parameters = 0;
  uint64_t bytes = 0;  // of the file
};

// Writes `target`, a path that ends in .gguf and does not exist yet, from the
// model `source`. The tokenizer is that of tokenizer.json, or of the source's
// GGUF metadata. Errors name file, key or tensor, limit and value;
// kUnsupportedParameter for what GGUF files cannot say (dynamic NTK, yarn with
// parameters of its own, pre-tokenizers other than Llama's).
absl::StatusOr<ExportReport> ExportGguf(const std::string& source,
                                        const std::string& target,
                                        const ExportOptions& options);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_GGUF_EXPORT_H_
