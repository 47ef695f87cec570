#include "worker/model/gguf_export.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/checkpoint_tensors.h"
#include "worker/model/config.h"
#include "worker/model/gguf_names.h"
#include "worker/model/gguf_plan.h"
#include "worker/model/json_file.h"
#include "worker/model/output_file.h"
#include "worker/model/parallel.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker {
namespace {

absl::Status CheckTarget(const std::string& target) {
  if (!target.ends_with(".gguf")) {
    return FieldError("DST", "a path that ends in .gguf", target);
  }
  std::error_code error;
  if (!std::filesystem::exists(target, error)) return absl::OkStatus();
  return FieldError("DST", "a file that does not exist yet", target);
}

// A tensor that is read, and how many of its pieces are not yet written.
struct Source {
  const CheckpointTensor* tensor = nullptr;
  std::atomic<int64_t> pieces_left = 0;
};

// Rows [first, first + count) of a tensor; of a vector its elements.
struct Piece {
  size_t tensor = 0;  // index
  int64_t first = 0;
  int64_t count = 0;
};

// Writes the tensors of one file, piece by piece, on several threads.
class Exporter {
 public:
  Exporter(const CheckpointTensors& checkpoint, const ModelConfig& config,
           const GgufPlan& plan, const ExportOptions& options)
      : checkpoint_(checkpoint),
        config_(config),
        plan_(plan),
        options_(options),
        sources_(plan.tensors.size()) {}

  absl::Status Run(const std::string& target);

 private:
  absl::Status Find(size_t index);
  absl::Status WritePiece(const OutputFile& file, const Piece& piece);
  std::vector<std::byte> VectorBytes(const PlannedTensor& tensor,
                                     const CheckpointTensor& source) const;
  std::vector<std::byte> RowBytesOf(const PlannedTensor& tensor,
                                    const CheckpointTensor& source,
                                    const Piece& piece) const;
  // Rows of q and k go from halves to neighbours, head by head.
  int64_t RowsAtOnce(const TensorSpec& spec) const;
  int64_t SourceRow(const TensorSpec& spec, int64_t row) const;
  void Done(int64_t elements);

  const CheckpointTensors& checkpoint_;
  const ModelConfig& config_;
  const GgufPlan& plan_;
  const ExportOptions& options_;
  std::vector<Source> sources_;  // of plan_.tensors
  std::vector<Piece> pieces_;
  absl::Mutex mutex_;
  int64_t elements_done_ ABSL_GUARDED_BY(mutex_) = 0;
};

int64_t Exporter::RowsAtOnce(const TensorSpec& spec) const {
  if (spec.cols == 0) return spec.rows;
  constexpr int64_t kElements = 1 << 20;
  // Whole heads, and whole runs of the reader.
  const int64_t unit = CheckpointTensors::kRowRun * config_.head_dim;
  return std::max<int64_t>(unit, kElements / spec.cols / unit * unit);
}

int64_t Exporter::SourceRow(const TensorSpec& spec, int64_t row) const {
  if (!HasRotatedRows(spec.name)) return row;
  const int64_t j = row % config_.head_dim;
  return row - j + j / 2 + j % 2 * (config_.head_dim / 2);
}

// The checkpoint's tensor and the pieces of it.
absl::Status Exporter::Find(size_t index) {
  const TensorSpec& spec = plan_.tensors[index].spec;
  CARAVAN_ASSIGN_OR_RETURN(const CheckpointTensor* const tensor,
                           checkpoint_.Get(spec.name));
  if (tensor->elements() != spec.elements() ||
      (spec.cols > 0 && tensor->rows() != spec.rows)) {
    return ModelFileError(
        tensor->file, StrCat("tensor ", spec.name),
        StrCat(spec.rows, " x ", std::max<int64_t>(spec.cols, 1)),
        StrCat(tensor->rows(), " x ", tensor->cols()));
  }
  const int64_t step = RowsAtOnce(spec);
  for (int64_t first = 0; first < spec.rows; first += step) {
    pieces_.push_back({index, first, std::min(step, spec.rows - first)});
    ++sources_[index].pieces_left;
  }
  sources_[index].tensor = tensor;
  return absl::OkStatus();
}

std::vector<std::byte> Exporter::VectorBytes(
    const PlannedTensor& tensor, const CheckpointTensor& source) const {
  std::vector<float> vector(static_cast<size_t>(tensor.spec.rows));
  checkpoint_.ReadFloats(source, 0, source.rows(), vector.data());
  std::vector<float> ordered(vector.size());
  for (int64_t i = 0; i < tensor.spec.rows; ++i) {
    ordered[i] = vector[SourceRow(tensor.spec, i)];
  }
  const std::span<const std::byte> bytes = std::as_bytes(std::span(ordered));
  return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> Exporter::RowBytesOf(const PlannedTensor& tensor,
                                            const CheckpointTensor& source,
                                            const Piece& piece) const {
  const int64_t cols = tensor.spec.cols;
  const int64_t row_bytes = RowBytes(tensor.type, cols);
  std::vector<float> rows(static_cast<size_t>(piece.count * cols));
  std::vector<std::byte> bytes(static_cast<size_t>(piece.count * row_bytes));
  checkpoint_.ReadFloats(source, piece.first, piece.count, rows.data());
  for (int64_t r = 0; r < piece.count; ++r) {
    const int64_t from = SourceRow(tensor.spec, piece.first + r) - piece.first;
    QuantizeRow(tensor.type, rows.data() + from * cols, cols,
                bytes.data() + r * row_bytes);
  }
  return bytes;
}

absl::Status Exporter::WritePiece(const OutputFile& file, const Piece& piece) {
  const PlannedTensor& tensor = plan_.tensors[piece.tensor];
  Source& source = sources_[piece.tensor];
  const bool vector = tensor.spec.cols == 0;
  const uint64_t before =
      vector ? 0
             : static_cast<uint64_t>(piece.first *
                                     RowBytes(tensor.type, tensor.spec.cols));
  CARAVAN_RETURN_IF_ERROR(file.WriteAt(
      tensor.offset + before, vector
                                  ? VectorBytes(tensor, *source.tensor)
                                  : RowBytesOf(tensor, *source.tensor, piece)));
  if (--source.pieces_left == 0) checkpoint_.DropPages(*source.tensor);
  Done(piece.count * std::max<int64_t>(tensor.spec.cols, 1));
  return absl::OkStatus();
}

void Exporter::Done(int64_t elements) {
  absl::MutexLock lock(&mutex_);
  elements_done_ += elements;
  if (!options_.progress) return;
  options_.progress(static_cast<int>(100 * elements_done_ / plan_.parameters));
}

absl::Status Exporter::Run(const std::string& target) {
  for (size_t i = 0; i < plan_.tensors.size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(Find(i));
  }
  CARAVAN_ASSIGN_OR_RETURN(OutputFile file,
                           OutputFile::Create(target, plan_.bytes));
  CARAVAN_RETURN_IF_ERROR(
      file.WriteAt(0, std::as_bytes(std::span(plan_.header))));
  CARAVAN_RETURN_IF_ERROR(
      file.WriteAt(plan_.rope_divisors_offset,
                   std::as_bytes(std::span(plan_.rope_divisors))));
  CARAVAN_RETURN_IF_ERROR(
      ForEachParallel(pieces_.size(), options_.threads,
                      [&](size_t i) { return WritePiece(file, pieces_[i]); }));
  return file.Close();
}

}  // namespace

absl::StatusOr<ExportReport> ExportGguf(const std::string& source,
                                        const std::string& target,
                                        const ExportOptions& options) {
  if (!CanQuantize(options.type)) {
    return FieldError("--type", "a type that is written", Name(options.type));
  }
  if (options.threads < 1 || options.threads > 256) {
    return FieldError("--threads", "in [1, 256]", StrCat(options.threads));
  }
  CARAVAN_RETURN_IF_ERROR(CheckTarget(target));
  CARAVAN_ASSIGN_OR_RETURN(const ModelConfig config,
                           LoadModelConfig(source, /*overrides=*/{}));
  CARAVAN_ASSIGN_OR_RETURN(const auto tensors, CheckpointTensors::Open(source));
  CARAVAN_ASSIGN_OR_RETURN(const GgufPlan plan,
                           PlanGguf(config, options.type, source));
  const absl::Status status =
      Exporter(*tensors, config, plan, options).Run(target);
  if (!status.ok()) {
    // Half a model must not stand in the way of the next attempt.
    std::error_code ignored;
    std::filesystem::remove(target, ignored);
    return status;
  }
  return ExportReport{.format = tensors->Describe(),
                      .tensors = std::ssize(plan.tensors),
                      .parameters = plan.parameters,
                      .bytes = plan.bytes};
}

}  // namespace caravan::worker
