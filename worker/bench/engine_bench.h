// The engine alone, in this process: a model, the cpu backend, no network. Each
// sample stands between two probes of the machine, and figures are shares of
// what the machine could do at that moment (samples.h).
#ifndef CARAVAN_WORKER_BENCH_ENGINE_BENCH_H_
#define CARAVAN_WORKER_BENCH_ENGINE_BENCH_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/bench/ceilings.h"
#include "worker/bench/samples.h"
#include "worker/ops/cpu/cpu_backend.h"

namespace caravan::worker::bench {

struct EngineBenchOptions {
  std::string model_directory;   // or GGUF file
  std::string weights = "keep";  // as the worker's --weights
  CpuOptions cpu;

  // What is measured.
  std::vector<int> batches = {1, 2, 4, 8, 16, 32};  // streams at once
  std::vector<int> contexts;     // of one stream; prompt tokens
  int32_t prefill_tokens = 512;  // of one prompt; 0: none
  int32_t prompt_tokens = 128;   // of each stream of a batch
  int32_t output_tokens = 64;    // the most that a stream decodes in a sample
  int whole_runs = 0;            // of each batch, prefill included; 0: none

  // As the worker's.
  std::string activations = "auto";
  std::string kv = "auto";
  int32_t max_step_tokens = 512;
  int32_t max_prefill_chunk = 512;
  int32_t depth = 1;

  // How it is measured.
  SampleRules rules;
  double sample_seconds = 0.5;  // of decoding; 0: one step
  double probe_seconds = 0.3;   // of reading, before and after each sample
  size_t probe_bytes = Ceilings::kDefaultBytes;
  uint64_t seed = 1;

  // Names the field, the limit and the value.
  absl::Status Validate() const;
};

// All of the machine's ceilings, once, in operations per second.
struct MachineReport {
  ReadCeiling read;
  double fp32 = 0;
  double bf16 = 0;
  double int8 = 0;
  std::string int8_instructions;  // which of the probes
};

// The median over the samples of one point, each figure of its own.
struct PointReport {
  enum class Kind { kDecode, kPrefill };
  Kind kind = Kind::kDecode;
  int streams = 1;
  int32_t prompt_tokens = 0;

  int kept_count = 0;
  int dropped_count = 0;  // the machine changed its speed meanwhile
  bool complete = false;  // as many samples as wanted
  double tokens_per_second = 0;
  double spread = 0;  // half the quartiles' distance, of the median
  double step_seconds = 0;
  double bytes_per_second = 0;       // of weights and KV that must be read
  double operations_per_second = 0;  // of matrix products
  double read_ceiling = 0;
  double operations_ceiling = 0;
  double read_share = 0;        // of the read ceiling
  double operations_share = 0;  // of the operations ceiling
  double bound_share = 0;       // of the lower of both bounds
};

// How the model came into memory. The floor is a copy of the checkpoint, or of
// the packed weights where those are more, into fresh memory by all threads.
struct LoadReport {
  double seconds = 0;  // from the files, which a run before has cached
  double floor_seconds = 0;
  double checkpoint_bytes = 0;      // of the tensors in their types
  double packed_bytes = 0;          // as allocated
  double planned_weight_bytes = 0;  // what packed_bytes was to be
  double planned_bytes = 0;         // weights, arenas and scratch
  double peak_bytes = 0;  // resident at most until then, KV not yet touched
};

// Whole runs of one batch: what a client of the engine sees.
struct WholeReport {
  int streams = 0;
  double tokens_per_second = 0;    // median
  double first_token_seconds = 0;  // median
};

struct EngineBenchReport {
  std::string numerics_class;
  std::string checkpoint;  // in words, with the types of its matrices
  int threads = 0;
  int64_t parameters = 0;
  Arithmetic arithmetic = Arithmetic::kFp32;  // that the class is bound by
  double step_bytes = 0;          // of weights in one step of decoding
  double kv_position_bytes = 0;   // of one position
  double prefill_operations = 0;  // of one token, the head left out
  MachineReport machine;
  LoadReport load;
  std::vector<PointReport> points;
  std::vector<WholeReport> whole;
  std::vector<Cliff> cliffs;  // of the batches
};

// `note` hears a line about each point as it is complete; may be null. Errors
// are those of loading the model and of the engine.
absl::StatusOr<EngineBenchReport> RunEngineBench(
    const EngineBenchOptions& options,
    const std::function<void(const std::string& line)>& note);

// Measures every point once for each `next` that answers true, and hands over
// what was measured: for taking turns with another program on one machine. The
// model stays loaded meanwhile. The report has no machine and no cliffs.
absl::Status RunEngineBenchTurns(
    const EngineBenchOptions& options, const std::function<bool()>& next,
    const std::function<void(const EngineBenchReport& report)>& hand_over);

}  // namespace caravan::worker::bench

#endif  // CARAVAN_WORKER_BENCH_ENGINE_BENCH_H_
