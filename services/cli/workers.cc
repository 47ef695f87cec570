// caravan workers: the fleet as the router sees it.
#include <unistd.h>

#include <iomanip>
#include <iostream>
#include <memory>

#include "absl/time/clock.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/cli/commands.h"
#include "services/cli/router_client.h"
#include "services/cli/table.h"

namespace caravan::cli {
namespace {

struct WorkersOptions {
  ClientOptions client;
  std::string model;
  double watch_s = 0;  // 0: once
};

std::string StateName(v1::WorkerState state) {
  constexpr std::string_view kPrefix = "WORKER_STATE_";
  const std::string name = v1::WorkerState_Name(state);
  return name.rfind(kPrefix, 0) == 0 ? name.substr(kPrefix.size()) : name;
}

std::string Rounded(double value, int decimals) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(decimals) << value;
  return text.str();
}

std::vector<std::string> RowOf(const v1::WorkerStatus& worker) {
  const v1::Registration& registration = worker.registration();
  const v1::Load& load = worker.load();
  const double age_s = static_cast<double>(worker.last_seen_age().seconds()) +
                       worker.last_seen_age().nanos() * 1e-9;
  return {registration.worker_id(),
          registration.address(),
          registration.model().name(),
          StateName(worker.state()),
          StrCat(load.running_sequence_count()),
          StrCat(load.waiting_sequence_count()),
          StrCat(load.leased_block_count(), "+", load.cached_block_count(), "/",
                 load.block_count()),
          StrCat(worker.indexed_block_count()),
          Rounded(load.decode_tokens_per_second(), 1),
          Rounded(load.prefill_tokens_per_second(), 1),
          Rounded(age_s, 1),
          registration.model().identity().numerics_class()};
}

absl::Status PrintOnce(const WorkersOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const v1::ListWorkersResponse response,
                           ListWorkers(options.client, options.model));
  Table table({"worker", "address", "model", "state", "running", "waiting",
               "leased+cached/blocks", "indexed", "decode tok/s",
               "prefill tok/s", "seen s ago", "class"});
  for (const v1::WorkerStatus& worker : response.workers()) {
    table.AddRow(RowOf(worker));
  }
  std::cout << table.ToString() << std::flush;
  return absl::OkStatus();
}

absl::Status RunWorkers(const WorkersOptions& options) {
  if (options.watch_s <= 0) return PrintOnce(options);
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  while (true) {
    if (terminal) std::cout << "\033[H\033[2J";
    const absl::Status status = PrintOnce(options);
    if (!status.ok() && !IsRetryable(status)) return status;
    if (!status.ok()) std::cout << ToStd(status.message()) << "\n";
    std::cout << std::flush;
    absl::SleepFor(absl::Seconds(options.watch_s));
  }
}

}  // namespace

Command AddWorkers(CLI::App& root) {
  CLI::App* app = root.add_subcommand("workers", "List the router's workers");
  const auto options = std::make_shared<WorkersOptions>();
  AddClientFlags(*app, options->client, "--router", "127.0.0.1:8090");
  app->add_option("--model", options->model, "Only this model");
  app->add_option("--watch", options->watch_s, "Repeat every so many seconds")
      ->check(CLI::NonNegativeNumber)
      ->expected(0, 1)
      ->default_str("1");
  return {app, [options] { return RunWorkers(*options); }};
}

}  // namespace caravan::cli
