// Models with random weights in Hugging Face layout, in the shapes of the
// family: for measuring speed and memory where no checkpoint is at hand.
#ifndef CARAVAN_WORKER_MODEL_RANDOM_MODEL_H_
#define CARAVAN_WORKER_MODEL_RANDOM_MODEL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/tensor/dtype.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

struct RandomModelOptions {
  std::string shape = "tiny";  // one of RandomModelShapes()
  DType dtype = DType::kBf16;
  // Instead a GGUF file of this type, one that CanQuantize(), where
  // gguf_plan.h has no other for a tensor.
  std::optional<WeightType> block_type = std::nullopt;
  uint64_t seed = 0;
  int threads = 1;  // [1, 256]; the bytes do not depend on it
  uint64_t max_file_bytes = 4'000'000'000;  // more: several files and an index
};

// "tiny", "tiny-wide", "small", "tinyllama", "llama-3.2-1b", "llama-2-7b", ...
std::vector<std::string_view> RandomModelShapes();

// config.json of a shape. kInvalidField for an unknown one.
absl::StatusOr<std::string> ShapeConfig(std::string_view shape, DType dtype);

// Writes config, generation config, weights and a tokenizer into `directory`,
// which must be empty or absent. Matrices and biases are drawn from a normal
// distribution of deviation 0.02 (its 65,536 quantiles, chosen by Philox from
// seed, tensor and element), norms are 1: the same bytes on every machine.
// Quantized blocks are drawn from 65,536 of 32 elements, or 16,384 of 256, of
// that distribution. At no time is more than a few MiB of weights in memory.
absl::Status WriteRandomModel(const std::string& directory,
                              const RandomModelOptions& options);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_RANDOM_MODEL_H_
