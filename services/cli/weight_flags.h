// Flags of the commands that write checkpoints.
#ifndef CARAVAN_SERVICES_CLI_WEIGHT_FLAGS_H_
#define CARAVAN_SERVICES_CLI_WEIGHT_FLAGS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "worker/model/convert.h"

namespace caravan::cli {

struct WeightFlags {
  std::string dtype = "keep";     // fp32, bf16, fp16 or keep
  uint64_t most_file_mib = 5120;  // of a file of weights, in MiB
};

void AddWeightFlags(CLI::App& app, WeightFlags& flags);

// Errors name the flag. Progress goes to stderr.
absl::StatusOr<worker::ConvertOptions> MakeConvertOptions(
    const WeightFlags& flags);

// "DIR: 291 tensors, 6738415616 parameters in 3 files, from pytorch".
std::string Describe(const std::string& target,
                     const worker::ConvertReport& report);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_WEIGHT_FLAGS_H_
