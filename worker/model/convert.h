// From any checkpoint that is read here to plain safetensors in the Hugging
// Face layout, and from a base and published differences to the weights that
// they stand for.
#ifndef CARAVAN_WORKER_MODEL_CONVERT_H_
#define CARAVAN_WORKER_MODEL_CONVERT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/tensor/dtype.h"

namespace caravan::worker {

struct ConvertOptions {
  // Of every tensor; where absent, plain tensors keep their type and quantized
  // ones become fp32, which loses nothing.
  std::optional<DType> dtype;
  // A file gets no further tensor that would make it larger.
  uint64_t most_file_bytes = uint64_t{5} << 30;
  std::function<void(int percent)> progress;  // may be null
};

struct ConvertReport {
  std::string format;  // of the source: CheckpointTensors::Describe()
  int64_t tensors = 0;
  int64_t parameters = 0;
  int files = 0;
};

// Writes the weights of `source` to the directory `target`, which must be empty
// or new, with config.json (without quantization_config), the generation
// config and the tokenizer's files. Errors name file, tensor, limit and value.
absl::StatusOr<ConvertReport> ConvertCheckpoint(const std::string& source,
                                                const std::string& target,
                                                const ConvertOptions& options);

// What the base has in rows of a matrix that only the differences have.
enum class NewRows { kRefuse, kZero, kMean };

struct DeltaOptions {
  ConvertOptions output;  // dtype: the differences' types where absent
  // Zero for Vicuna v0 and LLaVA, the mean of the base's rows for Alpaca.
  NewRows new_rows = NewRows::kRefuse;
  // The sum of all resulting weights, within 0.01, where given.
  std::optional<double> expected_sum;
};

struct DeltaReport {
  ConvertReport output;
  double sum = 0;                     // of all resulting weights
  std::vector<std::string> copied;    // tensors that the base lacks
  std::vector<std::string> enlarged;  // tensors with new rows
};

// target = base + delta, tensor by tensor, in fp32 before rounding. Files other
// than weights are the delta's. Tensors of the base that the delta lacks are
// an error, rotary tables apart.
absl::StatusOr<DeltaReport> AddDelta(const std::string& base,
                                     const std::string& delta,
                                     const std::string& target,
                                     const DeltaOptions& options);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_CONVERT_H_
