// caravan bench: load on a running gateway, or the engine alone.
#include <iostream>
#include <memory>
#include <string>

#include "common/clock.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/cli/bench_engine.h"
#include "services/cli/commands.h"
#include "services/cli/load_clients.h"
#include "services/cli/load_plan.h"
#include "services/cli/load_report.h"
#include "services/cli/load_runner.h"

namespace caravan::cli {
namespace {

struct BenchOptions {
  ClientOptions client;
  std::string http;  // HOST:PORT; empty: gRPC
  LoadClientOptions load;
  LoadPlanOptions plan;
  std::string prompt_tokens = "128";
  std::string output_tokens = "128";
  int32_t concurrency = 8;
  int channels = 1;
  bool json = false;
  bool each = false;
  bool engine_alone = false;
  EngineBenchFlags engine;
};

absl::Status CompletePlan(BenchOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(
      options.plan.prompt_tokens,
      ParseLengthRange("--prompt-tokens", options.prompt_tokens));
  CARAVAN_ASSIGN_OR_RETURN(
      options.plan.output_tokens,
      ParseLengthRange("--output-tokens", options.output_tokens));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<LoadClient>> MakeClient(
    const BenchOptions& options) {
  if (options.http.empty()) {
    return MakeGrpcLoadClient(options.client, options.load, options.channels);
  }
  CARAVAN_ASSIGN_OR_RETURN(HttpTarget target, ParseHttpTarget(options.http));
  target.api_key = options.client.api_key;
  target.timeout_s = options.client.timeout_s;
  return MakeHttpLoadClient(target, options.load);
}

void Print(const BenchOptions& options, const LoadReport& report,
           const LoadResult& result) {
  if (options.json) {
    std::cout << (options.each ? ToJson(report, result.outcomes)
                               : ToJson(report))
              << "\n";
    return;
  }
  if (options.plan.rate > 0) {
    std::cout << "open loop, " << options.plan.rate << " requests/s";
  } else {
    std::cout << "closed loop, " << options.concurrency << " at a time";
  }
  std::cout << ", prompt " << options.prompt_tokens << " and output "
            << options.output_tokens << " tokens, seed " << options.plan.seed
            << "\n"
            << ToText(report);
}

absl::Status RunServingBench(BenchOptions options) {
  CARAVAN_RETURN_IF_ERROR(CompletePlan(options));
  CARAVAN_ASSIGN_OR_RETURN(const std::unique_ptr<LoadClient> client,
                           MakeClient(options));
  const LoadResult result =
      RunLoad(options.plan, options.concurrency, *client, SystemClock::Get());
  const LoadReport report = MakeLoadReport(result);
  Print(options, report, result);
  if (report.failed == 0) return absl::OkStatus();
  for (const LoadOutcome& outcome : result.outcomes) {
    if (!outcome.status.ok()) {
      return Annotate(outcome.status, StrCat(report.failed,
                                             " requests failed, "
                                             "the first with"));
    }
  }
  return absl::OkStatus();
}

// The lengths are the load test's, both single numbers here.
absl::Status RunEngineAlone(BenchOptions options) {
  CARAVAN_RETURN_IF_ERROR(CompletePlan(options));
  const auto single = [](const char* flag, const LengthRange& range) {
    if (range.least == range.most) return absl::OkStatus();
    return FieldError(flag, "one length with --engine",
                      StrCat(range.least, ":", range.most));
  };
  CARAVAN_RETURN_IF_ERROR(
      single("--prompt-tokens", options.plan.prompt_tokens));
  CARAVAN_RETURN_IF_ERROR(
      single("--output-tokens", options.plan.output_tokens));
  if (options.load.model.empty()) {
    return FieldError("--model", "a model directory with --engine", "");
  }
  worker::bench::EngineBenchOptions& engine = options.engine.options;
  engine.model_directory = options.load.model;
  engine.prompt_tokens = options.plan.prompt_tokens.least;
  engine.output_tokens = options.plan.output_tokens.least;
  engine.seed = options.plan.seed;
  return RunEngineBenchCommand(options.engine, options.json);
}

// Flags of the load itself.
void AddPlanFlags(CLI::App& app, BenchOptions& options) {
  app.add_option("--requests", options.plan.request_count, "How many")
      ->check(CLI::Range(1, 1'000'000));
  auto* concurrency =
      app.add_option("--concurrency", options.concurrency,
                     "Requests that run at any time (closed loop)")
          ->check(CLI::Range(1, 100'000));
  app.add_option("--rate", options.plan.rate, "Arrivals per second (open loop)")
      ->check(CLI::PositiveNumber)
      ->excludes(concurrency);
  app.add_option("--prompt-tokens", options.prompt_tokens, "N or LEAST:MOST");
  app.add_option("--output-tokens", options.output_tokens, "N or LEAST:MOST");
  app.add_option("--shared-prefix", options.plan.shared_prefix_tokens,
                 "Leading tokens that all prompts share")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--vocabulary", options.plan.vocabulary,
                 "Prompt ids are drawn below this")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--seed", options.plan.seed, "Of lengths, ids, arrivals");
}

}  // namespace

Command AddBench(CLI::App& root) {
  CLI::App* app = root.add_subcommand(
      "bench", "Put load on a gateway and report times and tokens/s");
  const auto options = std::make_shared<BenchOptions>();
  options->plan.request_count = 64;
  AddClientFlags(*app, options->client, "--gateway", "127.0.0.1:8081");
  app->add_option("--http", options->http,
                  "HOST:PORT of the gateway's HTTP door (default: gRPC)");
  app->add_option("--model", options->load.model,
                  "Name of the model; with --engine its directory");
  app->add_option("--temperature", options->load.temperature, "0 is greedy");
  AddPlanFlags(*app, *options);
  app->add_option("--channels", options->channels, "gRPC connections")
      ->check(CLI::Range(1, 1024));
  auto* json = app->add_flag("--json", options->json, "Print JSON");
  app->add_flag("--each", options->each, "And of each request")->needs(json);
  app->add_flag("--engine", options->engine_alone,
                "The engine alone, in this process, beside the ceilings");
  AddEngineBenchFlags(*app, options->engine);
  return {app, [options] {
            return options->engine_alone ? RunEngineAlone(*options)
                                         : RunServingBench(*options);
          }};
}

}  // namespace caravan::cli
