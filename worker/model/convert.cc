#include "worker/model/convert.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/json.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/checkpoint_tensors.h"
#include "worker/model/json_file.h"
#include "worker/model/safetensors_writer.h"

namespace caravan::worker {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr double kSumTolerance = 0.01;

// What a model directory has beside weights and config.json.
constexpr std::array<std::string_view, 9> kOtherFiles = {
    "generation_config.json", "tokenizer.json",          "tokenizer.model",
    "tokenizer_config.json",  "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja",    "chat_template.json",      "vocab.json"};

// Where the values of a resulting tensor come from: rows of 32 at least, in
// their order.
struct Output {
  TensorHeader header;
  // Appends the whole tensor.
  std::function<absl::Status(SafetensorsWriter&)> write;
};

absl::Status SystemError(const std::string& path,
                         const std::error_code& error) {
  return MakeError(Reason::kModelFileInvalid,
                   StrCat(path, ": ", error.message()), {{"file", path}});
}

absl::Status MakeEmptyDirectory(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return SystemError(path, error);
  const bool empty = fs::is_empty(path, error);
  if (error) return SystemError(path, error);
  if (empty) return absl::OkStatus();
  return FieldError("DST", "an empty or new directory", path);
}

absl::Status CopyOtherFiles(const std::string& source,
                            const std::string& target) {
  for (const std::string_view name : kOtherFiles) {
    const std::string from = StrCat(source, "/", name);
    std::error_code error;
    if (!fs::exists(from, error)) continue;
    fs::copy_file(from, StrCat(target, "/", name), error);
    if (error) return SystemError(from, error);
  }
  return absl::OkStatus();
}

absl::Status WriteJson(const std::string& path, const json& object) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << DumpJson(object, 2) << "\n";
  out.close();
  if (out) return absl::OkStatus();
  return MakeError(Reason::kModelFileInvalid,
                   StrCat(path, ": cannot be written"), {{"file", path}});
}

std::string_view TorchName(DType dtype) {
  return dtype == DType::kFp32   ? "float32"
         : dtype == DType::kBf16 ? "bfloat16"
                                 : "float16";
}

absl::Status WriteConfig(const CheckpointTensors& source, DType dtype,
                         const std::string& target) {
  CARAVAN_ASSIGN_OR_RETURN(json config, source.Config());
  config.erase("quantization_config");
  config[config.contains("dtype") ? "dtype" : "torch_dtype"] = TorchName(dtype);
  return WriteJson(StrCat(target, "/config.json"), config);
}

// The outputs of each file.
std::vector<std::span<const Output>> Divide(std::span<const Output> outputs,
                                            uint64_t most_bytes) {
  std::vector<std::span<const Output>> files;
  size_t first = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const uint64_t more = outputs[i].header.bytes();
    if (i > first && bytes + more > most_bytes) {
      files.push_back(outputs.subspan(first, i - first));
      first = i;
      bytes = 0;
    }
    bytes += more;
  }
  files.push_back(outputs.subspan(first));
  return files;
}

std::string FileName(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  std::array<char, 64> name = {};
  std::snprintf(name.data(), name.size(), "model-%05zu-of-%05zu.safetensors",
                index + 1, count);
  return name.data();
}

// Writes all files and, of several, their index.
class FilesWriter {
 public:
  FilesWriter(std::string target, const ConvertOptions& options,
              std::span<const Output> outputs)
      : target_(std::move(target)), options_(options), outputs_(outputs) {
    for (const Output& output : outputs) {
      elements_ += output.header.elements();
    }
  }

  absl::StatusOr<ConvertReport> Run();

 private:
  absl::Status WriteFile(const std::string& name,
                         std::span<const Output> outputs);
  absl::Status WriteIndex() const;

  const std::string target_;
  const ConvertOptions& options_;
  const std::span<const Output> outputs_;
  int64_t elements_ = 0;
  int64_t done_ = 0;
  uint64_t bytes_ = 0;
  json weight_map_ = json::object();
};

absl::Status FilesWriter::WriteFile(const std::string& name,
                                    std::span<const Output> outputs) {
  std::vector<TensorHeader> headers;
  for (const Output& output : outputs) headers.push_back(output.header);
  CARAVAN_ASSIGN_OR_RETURN(
      const auto writer,
      SafetensorsWriter::Create(StrCat(target_, "/", name), headers));
  for (const Output& output : outputs) {
    const absl::Status written = output.write(*writer);
    if (!written.ok()) return Annotate(written, output.header.name);
    weight_map_[output.header.name] = name;
    bytes_ += output.header.bytes();
    done_ += output.header.elements();
    if (options_.progress && elements_ > 0) {
      options_.progress(static_cast<int>(100 * done_ / elements_));
    }
  }
  return writer->Close();
}

absl::Status FilesWriter::WriteIndex() const {
  return WriteJson(
      StrCat(target_, "/model.safetensors.index.json"),
      {{"metadata", {{"total_size", bytes_}}}, {"weight_map", weight_map_}});
}

absl::StatusOr<ConvertReport> FilesWriter::Run() {
  const auto files = Divide(outputs_, options_.most_file_bytes);
  for (size_t i = 0; i < files.size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(WriteFile(FileName(i, files.size()), files[i]));
  }
  if (files.size() > 1) CARAVAN_RETURN_IF_ERROR(WriteIndex());
  ConvertReport report;
  report.tensors = static_cast<int64_t>(outputs_.size());
  report.parameters = elements_;
  report.files = static_cast<int>(files.size());
  return report;
}

// Rows that are read at once: whole heads and whole runs, a few megabytes.
int64_t RowsAtOnce(const CheckpointTensor& tensor) {
  constexpr int64_t kElements = int64_t{1} << 21;
  const int64_t unit =
      std::max<int64_t>(CheckpointTensors::kRowRun, tensor.interleaved) *
      (tensor.interleaved % CheckpointTensors::kRowRun == 0
           ? 1
           : CheckpointTensors::kRowRun);
  const int64_t rows = kElements / std::max<int64_t>(tensor.cols(), 1);
  return std::max(unit, rows / unit * unit);
}

using RowsVisitor =
    std::function<absl::Status(int64_t first, std::span<float> values)>;

// Calls visit(first row, values) for all rows of a tensor in their order.
absl::Status ForEachRows(const CheckpointTensors& source,
                         const CheckpointTensor& tensor,
                         const RowsVisitor& visit) {
  const bool merged = tensor.data == nullptr && !tensor.write_floats;
  const int64_t step = merged ? tensor.rows() : RowsAtOnce(tensor);
  std::vector<float> values;
  for (int64_t first = 0; first < tensor.rows(); first += step) {
    const int64_t count = std::min(step, tensor.rows() - first);
    values.resize(static_cast<size_t>(count * tensor.cols()));
    source.ReadFloats(tensor, first, count, values.data());
    CARAVAN_RETURN_IF_ERROR(visit(first, values));
  }
  source.DropPages(tensor);
  return absl::OkStatus();
}

DType KeptDType(const CheckpointTensor& tensor) {
  return PlainDType(tensor.type).value_or(DType::kFp32);
}

// Old files carry tables that are computed from config.json.
bool IsRotaryTable(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq");
}

Output PlainOutput(const CheckpointTensors& source,
                   const CheckpointTensor& tensor,
                   const ConvertOptions& options) {
  Output output;
  output.header = {tensor.name, options.dtype.value_or(KeptDType(tensor)),
                   tensor.shape};
  const DType dtype = output.header.dtype;
  output.write = [&source, &tensor, dtype](SafetensorsWriter& writer) {
    return ForEachRows(source, tensor, [&](int64_t, std::span<float> values) {
      return writer.Append(dtype, values);
    });
  };
  return output;
}

// The type that most of the weights have.
DType MainDType(std::span<const Output> outputs) {
  std::array<int64_t, 3> counts = {};
  for (const Output& output : outputs) {
    counts[static_cast<size_t>(output.header.dtype)] +=
        output.header.elements();
  }
  return static_cast<DType>(std::max_element(counts.begin(), counts.end()) -
                            counts.begin());
}

// One tensor of the base and one of the differences, and what they give.
class DeltaAdder {
 public:
  DeltaAdder(const CheckpointTensors& base, const CheckpointTensors& delta,
             const DeltaOptions& options, DeltaReport* report)
      : base_(base), delta_(delta), options_(options), report_(report) {}

  // Checks all names and shapes.
  absl::StatusOr<std::vector<Output>> Plan();

 private:
  absl::Status CheckShape(const CheckpointTensor& base,
                          const CheckpointTensor& delta);
  Output Sum(const CheckpointTensor* base, const CheckpointTensor& delta);
  absl::Status Write(const CheckpointTensor* base,
                     const CheckpointTensor& delta, DType dtype,
                     SafetensorsWriter& writer);
  // What the base has in each row that only the differences have.
  absl::Status NewRow(const CheckpointTensor& base, std::vector<float>& row);

  const CheckpointTensors& base_;
  const CheckpointTensors& delta_;
  const DeltaOptions& options_;
  DeltaReport* const report_;
};

absl::Status DeltaAdder::CheckShape(const CheckpointTensor& base,
                                    const CheckpointTensor& delta) {
  if (base.shape == delta.shape) return absl::OkStatus();
  const bool more_rows = base.shape.size() == 2 && delta.shape.size() == 2 &&
                         base.shape[1] == delta.shape[1] &&
                         base.shape[0] < delta.shape[0];
  const auto text = [](const CheckpointTensor& tensor) {
    return StrCat("[", tensor.rows(), ", ", tensor.cols(), "]");
  };
  if (!more_rows) {
    return ModelFileError(
        delta.file, StrCat("tensor ", delta.name, ": shape"),
        StrCat("that of the base, ", text(base), ", or with more rows"),
        text(delta));
  }
  if (options_.new_rows == NewRows::kRefuse) {
    return FieldError(
        "--new-rows",
        StrCat("zero (Vicuna v0, LLaVA) or mean (Alpaca) where tensor ",
               delta.name, " of the differences has ",
               delta.rows() - base.rows(), " rows more than the base"),
        "nothing");
  }
  report_->enlarged.push_back(delta.name);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Output>> DeltaAdder::Plan() {
  std::vector<Output> outputs;
  for (const auto& [name, delta] : delta_.tensors()) {
    if (IsRotaryTable(name)) continue;
    const CheckpointTensor* const base = base_.Find(name);
    if (base == nullptr) {
      report_->copied.push_back(name);
    } else {
      CARAVAN_RETURN_IF_ERROR(CheckShape(*base, delta));
    }
    outputs.push_back(Sum(base, delta));
  }
  for (const auto& [name, base] : base_.tensors()) {
    if (delta_.Find(name) != nullptr || IsRotaryTable(name)) continue;
    return ModelFileError(base.file, StrCat("tensor ", name),
                          "in the differences too", "absence");
  }
  return outputs;
}

Output DeltaAdder::Sum(const CheckpointTensor* base,
                       const CheckpointTensor& delta) {
  Output output;
  output.header = {delta.name, options_.output.dtype.value_or(KeptDType(delta)),
                   delta.shape};
  const DType dtype = output.header.dtype;
  output.write = [this, base, &delta, dtype](SafetensorsWriter& writer) {
    return Write(base, delta, dtype, writer);
  };
  return output;
}

absl::Status DeltaAdder::NewRow(const CheckpointTensor& base,
                                std::vector<float>& row) {
  row.assign(static_cast<size_t>(base.cols()), 0);
  if (options_.new_rows != NewRows::kMean) return absl::OkStatus();
  std::vector<double> sums(row.size());
  CARAVAN_RETURN_IF_ERROR(
      ForEachRows(base_, base, [&](int64_t, std::span<float> values) {
        for (size_t i = 0; i < values.size(); ++i) {
          sums[i % sums.size()] += values[i];
        }
        return absl::OkStatus();
      }));
  for (size_t i = 0; i < row.size(); ++i) {
    row[i] = static_cast<float>(sums[i] / static_cast<double>(base.rows()));
  }
  return absl::OkStatus();
}

absl::Status DeltaAdder::Write(const CheckpointTensor* base,
                               const CheckpointTensor& delta, DType dtype,
                               SafetensorsWriter& writer) {
  std::vector<float> weights;
  std::vector<float> row;
  if (base != nullptr) {
    weights.resize(static_cast<size_t>(base->elements()));
    base_.ReadFloats(*base, 0, base->rows(), weights.data());
    base_.DropPages(*base);
    if (base->rows() < delta.rows()) {
      CARAVAN_RETURN_IF_ERROR(NewRow(*base, row));
    }
  }
  return ForEachRows(
      delta_, delta, [&](int64_t first, std::span<float> values) {
        const size_t offset = static_cast<size_t>(first * delta.cols());
        for (size_t i = 0; i < values.size(); ++i) {
          const size_t at = offset + i;
          if (at < weights.size()) {
            values[i] += weights[at];
          } else if (!row.empty()) {
            values[i] += row[at % row.size()];
          }
          report_->sum += values[i];
        }
        return writer.Append(dtype, values);
      });
}

}  // namespace

absl::StatusOr<ConvertReport> ConvertCheckpoint(const std::string& source,
                                                const std::string& target,
                                                const ConvertOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const auto tensors, CheckpointTensors::Open(source));
  CARAVAN_RETURN_IF_ERROR(MakeEmptyDirectory(target));
  std::vector<Output> outputs;
  for (const auto& [name, tensor] : tensors->tensors()) {
    if (IsRotaryTable(name)) continue;
    outputs.push_back(PlainOutput(*tensors, tensor, options));
  }
  CARAVAN_RETURN_IF_ERROR(WriteConfig(*tensors, MainDType(outputs), target));
  CARAVAN_RETURN_IF_ERROR(CopyOtherFiles(source, target));
  CARAVAN_ASSIGN_OR_RETURN(ConvertReport report,
                           FilesWriter(target, options, outputs).Run());
  report.format = tensors->Describe();
  return report;
}

absl::StatusOr<DeltaReport> AddDelta(const std::string& base,
                                     const std::string& delta,
                                     const std::string& target,
                                     const DeltaOptions& options) {
  CARAVAN_ASSIGN_OR_RETURN(const auto from, CheckpointTensors::Open(base));
  CARAVAN_ASSIGN_OR_RETURN(const auto more, CheckpointTensors::Open(delta));
  DeltaReport report;
  DeltaAdder adder(*from, *more, options, &report);
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<Output> outputs, adder.Plan());
  CARAVAN_RETURN_IF_ERROR(MakeEmptyDirectory(target));
  CARAVAN_RETURN_IF_ERROR(WriteConfig(*more, MainDType(outputs), target));
  CARAVAN_RETURN_IF_ERROR(CopyOtherFiles(delta, target));
  CARAVAN_ASSIGN_OR_RETURN(report.output,
                           FilesWriter(target, options.output, outputs).Run());
  report.output.format = more->Describe();
  if (options.expected_sum &&
      !(std::abs(report.sum - *options.expected_sum) <= kSumTolerance)) {
    return ModelFileError(
        target, "sum of all weights",
        StrCat(*options.expected_sum, " within ", kSumTolerance,
               " (wrong base, or damaged files?)"),
        StrCat(report.sum));
  }
  return report;
}

}  // namespace caravan::worker
