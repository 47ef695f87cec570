// The part of `caravan bench` that needs no gateway: --engine.
#ifndef CARAVAN_SERVICES_CLI_BENCH_ENGINE_H_
#define CARAVAN_SERVICES_CLI_BENCH_ENGINE_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "worker/bench/engine_bench.h"

namespace caravan::cli {

// What the flags of the engine's bench say.
struct EngineBenchFlags {
  worker::bench::EngineBenchOptions options;
  std::optional<std::string> batches;  // none: the options' unless contexts
  std::string contexts;
  bool turns = false;  // one report for each line of standard input

  // Cells instead of batches and contexts (worker/bench/cells.h).
  std::optional<std::string> cells;  // names, or "all"; none: on cuda all
  std::string device = "cpu";
  std::string profile = "exact";
  std::string gemm_algorithms;
  int cell_blocks = 5;
  int cell_steps = 50;
};

// Flags that only the engine's bench has.
void AddEngineBenchFlags(CLI::App& app, EngineBenchFlags& flags);

// Runs and prints. Notes about points go to standard error.
absl::Status RunEngineBenchCommand(const EngineBenchFlags& flags, bool json);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_BENCH_ENGINE_H_
