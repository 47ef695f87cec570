#include "services/cli/weight_flags.h"

#include <iostream>
#include <memory>

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::cli {

void AddWeightFlags(CLI::App& app, WeightFlags& flags) {
  app.add_option("--dtype", flags.dtype,
                 "Of all tensors: fp32, bf16, fp16, or keep (quantized "
                 "matrices become fp32)");
  app.add_option("--file-mib", flags.most_file_mib,
                 "Most MiB in a file of several tensors")
      ->check(CLI::Range(1, 1 << 20));
}

absl::StatusOr<worker::ConvertOptions> MakeConvertOptions(
    const WeightFlags& flags) {
  worker::ConvertOptions options;
  options.most_file_bytes = flags.most_file_mib << 20;
  if (flags.dtype == "fp32") {
    options.dtype = worker::DType::kFp32;
  } else if (flags.dtype == "bf16") {
    options.dtype = worker::DType::kBf16;
  } else if (flags.dtype == "fp16") {
    options.dtype = worker::DType::kFp16;
  } else if (flags.dtype != "keep") {
    return FieldError("--dtype", "fp32, bf16, fp16 or keep", flags.dtype);
  }
  options.progress = [last = std::make_shared<int>(0)](int percent) {
    if (percent < *last + 10) return;
    *last = percent - percent % 10;
    std::cerr << *last << " %\n";
  };
  return options;
}

std::string Describe(const std::string& target,
                     const worker::ConvertReport& report) {
  return StrCat(target, ": ", report.tensors, " tensors, ", report.parameters,
                " parameters in ", report.files,
                report.files == 1 ? " file" : " files", ", from ",
                report.format);
}

}  // namespace caravan::cli
