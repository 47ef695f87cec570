#include "services/cli/bench_engine.h"

#include <algorithm>
#include <iostream>
#include <string>
#include <thread>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "services/cli/count_list.h"
#include "worker/bench/cell_bench.h"
#include "worker/bench/engine_report.h"

namespace caravan::cli {
namespace {

using worker::bench::EngineBenchOptions;
using worker::bench::EngineBenchReport;

constexpr int kAttemptsPerSample = 3;

absl::StatusOr<EngineBenchOptions> OptionsOf(const EngineBenchFlags& flags) {
  EngineBenchOptions options = flags.options;
  CARAVAN_ASSIGN_OR_RETURN(options.contexts,
                           ParseCountList("--contexts", flags.contexts));
  if (flags.batches) {
    CARAVAN_ASSIGN_OR_RETURN(options.batches,
                             ParseCountList("--batches", *flags.batches));
  } else if (!options.contexts.empty()) {
    options.batches.clear();
  }
  options.rules.most_attempts = kAttemptsPerSample * options.rules.wanted;
  return options;
}

void AddWhatFlags(CLI::Option_group& group, EngineBenchFlags& flags) {
  EngineBenchOptions& options = flags.options;
  group.add_option("--batches", flags.batches,
                   "Streams at once, such as 1,2,4 or 1-33, each with a "
                   "prompt of --prompt-tokens");
  group.add_option("--contexts", flags.contexts,
                   "Prompt tokens of one stream, such as 128,2048");
  group.add_option("--prefill-tokens", options.prefill_tokens,
                   "Of the prefill (0: none)");
  group.add_option("--whole-runs", options.whole_runs,
                   "Also so many runs of each batch with their prefill");
}

void AddHowFlags(CLI::Option_group& group, EngineBenchOptions& options) {
  group.add_option("--threads", options.cpu.threads, "Of the backend");
  group.add_flag("--pin", options.cpu.pin, "Bind threads to cores");
  group.add_option("--activations", options.activations, "As the worker's");
  group.add_option("--kv", options.kv, "As the worker's");
  group.add_option("--weights", options.weights, "As the worker's flag");
  group.add_option("--max-step-tokens", options.max_step_tokens,
                   "As the worker's flag");
  group.add_option("--max-prefill-chunk", options.max_prefill_chunk,
                   "As the worker's flag");
  group.add_option("--depth", options.depth, "Plans in flight");
  group.add_option("--samples", options.rules.wanted,
                   "Of each point, between probes that agree; up to three "
                   "times as many are tried");
  group.add_option("--sample-seconds", options.sample_seconds,
                   "Of decoding in a sample");
  group.add_option("--probe-seconds", options.probe_seconds,
                   "Of reading memory before and after each sample");
}

// A line of JSON for each line of standard input, until that ends.
absl::Status RunTurns(const EngineBenchOptions& options) {
  return worker::bench::RunEngineBenchTurns(
      options,
      [] {
        std::string line;
        return static_cast<bool>(std::getline(std::cin, line));
      },
      [](const EngineBenchReport& report) {
        std::cout << worker::bench::ToJson(report) << "\n" << std::flush;
      });
}

void AddCellFlags(CLI::Option_group& group, EngineBenchFlags& flags) {
  group.add_option("--device", flags.device, "cpu or cuda");
  group.add_option("--cells", flags.cells,
                   "The table of cells: all, or such as C1,C7; on cuda all. "
                   "C5 is of --weights fp8, C6 of q4_0");
  group.add_option("--profile", flags.profile, "exact, or on cuda fast");
  group.add_option("--gemm-algorithms", flags.gemm_algorithms,
                   "As the worker's flag");
  group.add_option("--cell-blocks", flags.cell_blocks,
                   "Blocks of steps of a cell; the median counts");
  group.add_option("--cell-steps", flags.cell_steps, "Steps of a block");
}

absl::Status RunCells(const EngineBenchFlags& flags, bool json) {
  if (json || flags.turns) {
    return UnsupportedError(json ? "--json" : "--turns",
                            "cells are a table; leave it out");
  }
  worker::bench::CellBenchOptions options;
  options.model_directory = flags.options.model_directory;
  options.device = flags.device;
  options.profile = flags.profile;
  options.gemm_algorithms = flags.gemm_algorithms;
  options.activations = flags.options.activations;
  options.kv = flags.options.kv;
  options.weights = flags.options.weights;
  options.threads = flags.options.cpu.threads;
  options.blocks = flags.cell_blocks;
  options.steps = flags.cell_steps;
  options.max_step_tokens = flags.options.max_step_tokens;
  const std::string names = flags.cells.value_or("all");
  CARAVAN_ASSIGN_OR_RETURN(
      options.cells, worker::bench::CellsNamed(names == "all" ? "" : names));
  CARAVAN_ASSIGN_OR_RETURN(
      const std::string table,
      worker::bench::RunCellBench(
          options, [](const std::string& line) { std::cerr << line << "\n"; }));
  std::cout << table;
  return absl::OkStatus();
}

}  // namespace

void AddEngineBenchFlags(CLI::App& app, EngineBenchFlags& flags) {
  flags.options.cpu.threads = static_cast<int>(
      std::clamp(std::thread::hardware_concurrency(), 1u, 256u));
  CLI::Option_group* group = app.add_option_group("engine", "With --engine");
  AddWhatFlags(*group, flags);
  AddHowFlags(*group, flags.options);
  group->add_flag("--turns", flags.turns,
                  "Measure once, and print a line of JSON, for each line of "
                  "standard input: for taking turns with another program");
  AddCellFlags(*group, flags);
}

absl::Status RunEngineBenchCommand(const EngineBenchFlags& flags, bool json) {
  if (flags.cells || flags.device != "cpu") return RunCells(flags, json);
  CARAVAN_ASSIGN_OR_RETURN(const EngineBenchOptions options, OptionsOf(flags));
  CARAVAN_RETURN_IF_ERROR(options.Validate());
  if (flags.turns) return RunTurns(options);
  CARAVAN_ASSIGN_OR_RETURN(
      const EngineBenchReport report,
      worker::bench::RunEngineBench(
          options, [](const std::string& line) { std::cerr << line << "\n"; }));
  std::cout << (json ? worker::bench::ToJson(report) + "\n"
                     : worker::bench::ToText(report));
  return absl::OkStatus();
}

}  // namespace caravan::cli
