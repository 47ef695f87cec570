// The engine alone, in this process: a model directory, the cpu backend, no
// network. What the whole suite's speed is measured against, beside the
// ceilings of the same minute.
#ifndef CARAVAN_WORKER_BENCH_ENGINE_BENCH_H_
#define CARAVAN_WORKER_BENCH_ENGINE_BENCH_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/cpu/cpu_backend.h"

namespace caravan::worker::bench {

struct EngineBenchOptions {
  std::string model_directory;
  CpuOptions cpu;
  std::vector<int> batches = {1, 2, 4, 8, 16, 32};  // streams at once
  int32_t prefill_tokens = 512;                     // of one prompt; 0: none
  int32_t prompt_tokens = 128;                      // of each stream
  int32_t output_tokens = 128;                      // of each stream
  int32_t max_step_tokens = 512;
  int32_t max_prefill_chunk = 512;
  int32_t depth = 1;
  int repeats = 1;  // the median of so many runs is reported
  uint64_t seed = 1;

  // Names the field, the limit and the value.
  absl::Status Validate() const;
};

// Ceilings, before and after a sample the greater of the two.
struct MomentCeilings {
  double read_bytes_per_second = 0;
  double fma_per_second = 0;  // fp32 operations
};

struct PrefillSample {
  int32_t tokens = 0;
  double tokens_per_second = 0;  // until the first token is there
  double operations_per_second = 0;
  MomentCeilings ceilings;
};

struct DecodeSample {
  int batch = 0;
  double step_seconds = 0;             // median of steps that only decode
  double tokens_per_second = 0;        // batch / step_seconds
  double whole_tokens_per_second = 0;  // prefill included, start to end
  double first_token_seconds = 0;      // median over streams
  double bytes_per_second = 0;         // of weights, read once per step
  double operations_per_second = 0;    // of matrix products
  MomentCeilings ceilings;
};

struct EngineBenchReport {
  std::string numerics_class;
  int threads = 0;
  int64_t parameters = 0;
  double step_bytes = 0;  // of weights in one step
  std::vector<PrefillSample> prefill;
  std::vector<DecodeSample> decode;
};

// `note` hears a line about each sample as it is there; may be null. Errors
// are those of loading the model and of the engine.
absl::StatusOr<EngineBenchReport> RunEngineBench(
    const EngineBenchOptions& options,
    const std::function<void(const std::string& line)>& note);

std::string ToText(const EngineBenchReport& report);
std::string ToJson(const EngineBenchReport& report);

}  // namespace caravan::worker::bench

#endif  // CARAVAN_WORKER_BENCH_ENGINE_BENCH_H_
