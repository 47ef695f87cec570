// caravan apply-delta: weights from a base and published differences.
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/cli/commands.h"
#include "services/cli/weight_flags.h"
#include "worker/model/convert.h"
#include "worker/model/xor_delta.h"

namespace caravan::cli {
namespace {

struct Options {
  std::string mode;
  std::string base;
  std::string delta;
  std::string target;
  WeightFlags weights;
  std::string new_rows;
  std::optional<double> expected_sum;
};

void PrintNames(const char* what, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    std::cout << what << " " << name << "\n";
  }
}

absl::StatusOr<worker::NewRows> ParseNewRows(const std::string& name) {
  if (name.empty()) return worker::NewRows::kRefuse;
  if (name == "zero") return worker::NewRows::kZero;
  if (name == "mean") return worker::NewRows::kMean;
  return FieldError("--new-rows", "zero or mean", name);
}

absl::Status RunAdd(const Options& options) {
  worker::DeltaOptions delta;
  CARAVAN_ASSIGN_OR_RETURN(delta.output, MakeConvertOptions(options.weights));
  CARAVAN_ASSIGN_OR_RETURN(delta.new_rows, ParseNewRows(options.new_rows));
  delta.expected_sum = options.expected_sum;
  CARAVAN_ASSIGN_OR_RETURN(
      const worker::DeltaReport report,
      worker::AddDelta(options.base, options.delta, options.target, delta));
  PrintNames("new rows in", report.enlarged);
  PrintNames("not in the base:", report.copied);
  std::cout << Describe(options.target, report.output) << ", sum "
            << StrCat(report.sum) << "\n";
  return absl::OkStatus();
}

absl::Status RunXor(const Options& options) {
  CARAVAN_ASSIGN_OR_RETURN(
      const worker::XorReport report,
      worker::ApplyXor(options.base, options.delta, options.target));
  std::cout << options.target << ": " << report.bytes << " bytes; "
            << report.checked_files << " files verified, " << report.xored_files
            << " XOR-ed by name, " << report.copied_files << " copied\n";
  return absl::OkStatus();
}

absl::Status RunApplyDelta(const Options& options) {
  if (options.mode == "add") return RunAdd(options);
  if (options.mode == "xor") return RunXor(options);
  return FieldError("MODE", "add or xor", options.mode);
}

}  // namespace

Command AddApplyDelta(CLI::App& root) {
  CLI::App* app = root.add_subcommand(
      "apply-delta",
      "Weights from a base and published differences: add (Vicuna, Koala, "
      "Alpaca, WizardLM, LLaVA) or xor (BELLE, OpenAssistant)");
  const auto options = std::make_shared<Options>();
  app->add_option("MODE", options->mode, "add or xor")->required();
  app->add_option("BASE", options->base,
                  "Model directory; for xor also the key's file")
      ->required();
  app->add_option("DELTA", options->delta,
                  "Directory of the differences; for xor also a file")
      ->required();
  app->add_option("DST", options->target, "Empty or new directory")->required();
  AddWeightFlags(*app, options->weights);
  app->add_option("--new-rows", options->new_rows,
                  "add: the base's part of rows that only the differences "
                  "have: zero (Vicuna v0, LLaVA) or mean (Alpaca)");
  app->add_option("--expect-sum", options->expected_sum,
                  "add: the sum of all weights, within 0.01 (Alpaca: "
                  "50637.1836, with --dtype fp32)");
  return {app, [options] { return RunApplyDelta(*options); }};
}

}  // namespace caravan::cli
