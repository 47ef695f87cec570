#include "services/cli/bench_engine.h"

#include <algorithm>
#include <iostream>
#include <string>
#include <thread>

#include "common/status/status_macros.h"

namespace caravan::cli {

using worker::bench::EngineBenchOptions;
using worker::bench::EngineBenchReport;

void AddEngineBenchFlags(CLI::App& app, EngineBenchOptions& options) {
  options.cpu.threads = static_cast<int>(
      std::clamp(std::thread::hardware_concurrency(), 1u, 256u));
  CLI::Option_group* group = app.add_option_group("engine", "With --engine");
  group->add_option("--threads", options.cpu.threads, "Of the backend");
  group->add_flag("--pin", options.cpu.pin, "Bind threads to cores");
  group->add_option("--batches", options.batches, "Streams at once, by comma")
      ->delimiter(',');
  group->add_option("--prefill-tokens", options.prefill_tokens,
                    "Of the prefill sample (0: none)");
  group->add_option("--max-step-tokens", options.max_step_tokens,
                    "As the worker's flag");
  group->add_option("--max-prefill-chunk", options.max_prefill_chunk,
                    "As the worker's flag");
  group->add_option("--depth", options.depth, "Plans in flight");
  group->add_option("--repeats", options.repeats, "The median is reported");
}

absl::Status RunEngineBenchCommand(const EngineBenchOptions& options,
                                   bool json) {
  CARAVAN_RETURN_IF_ERROR(options.Validate());
  CARAVAN_ASSIGN_OR_RETURN(
      const EngineBenchReport report,
      worker::bench::RunEngineBench(
          options, [](const std::string& line) { std::cerr << line << "\n"; }));
  std::cout << (json ? worker::bench::ToJson(report)
                     : worker::bench::ToText(report))
            << "\n";
  return absl::OkStatus();
}

}  // namespace caravan::cli
