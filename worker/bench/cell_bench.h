// Measures cells (cells.h): a model on one backend, by blocks of steps, each
// block beside nothing else.
#ifndef CARAVAN_WORKER_BENCH_CELL_BENCH_H_
#define CARAVAN_WORKER_BENCH_CELL_BENCH_H_

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/bench/ceilings.h"
#include "worker/bench/cells.h"
#include "worker/ops/backend.h"

namespace caravan::worker::bench {

struct CellBenchOptions {
  std::string model_directory;    // or GGUF file
  std::string device = "cuda";    // or cpu
  std::string profile = "exact";  // or, on cuda, fast
  std::string gemm_algorithms;    // as the worker's
  std::string activations = "auto";
  std::string kv = "auto";
  std::string weights = "keep";
  int threads = 1;          // on cpu, and of loading
  std::vector<Cell> cells;  // CellsNamed()
  int blocks = 5;           // the median counts
  int steps = 50;           // of a block of decoding
  int32_t max_step_tokens = 2048;
  size_t probe_bytes = Ceilings::kDefaultBytes;  // of the processor's ceilings

  // Names the field, the limit and the value.
  absl::Status Validate() const;
};

// The table, with the ceilings of this run. A cell that does not fit (context
// or memory) says so in its place. `note` hears of cells as they are measured;
// may be null.
absl::StatusOr<std::string> RunCellBench(
    const CellBenchOptions& options,
    const std::function<void(const std::string& line)>& note);

}  // namespace caravan::worker::bench

#endif  // CARAVAN_WORKER_BENCH_CELL_BENCH_H_
