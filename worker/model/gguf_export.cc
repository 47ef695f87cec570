#include "worker/model/gguf_export.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "common/gguf/gguf_file.h"
#include "common/gguf/gguf_writer.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/checkpoint_tensors.h"
#include "worker/model/config.h"
#include "worker/model/gguf_names.h"
#include "worker/model/gguf_tokenizer.h"
#include "worker/model/json_file.h"
#include "worker/model/layout.h"
#include "worker/model/rope.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker {
namespace {

constexpr std::string_view kRopeFrequencies = "rope_freqs.weight";

// The type for rows of `cols` elements.
WeightType Fitting(WeightType type, int64_t cols) {
  if (cols % InfoOf(type).elements == 0) return type;
  if (cols % 32 != 0) return WeightType::kFp16;
  return type == WeightType::kQ4_K ? WeightType::kQ5_0 : WeightType::kQ8_0;
}

bool IsCoarse(WeightType type) {
  switch (type) {
    case WeightType::kQ4_0:
    case WeightType::kQ4_1:
    case WeightType::kQ5_0:
    case WeightType::kQ5_1:
    case WeightType::kQ4_K:
      return true;
    default:
      return false;
  }
}

WeightType TypeFor(const TensorSpec& tensor, bool tied, WeightType type) {
  if (tensor.cols == 0) return WeightType::kFp32;
  const bool head = tensor.group == TensorGroup::kHead ||
                    (tied && tensor.group == TensorGroup::kEmbedding);
  return Fitting(head && IsCoarse(type) ? WeightType::kQ6_K : type,
                 tensor.cols);
}

const gguf::TensorType& GgufType(WeightType type) {
  const std::string_view name = type == WeightType::kFp32   ? "f32"
                                : type == WeightType::kFp16 ? "f16"
                                                            : Name(type);
  return *gguf::FindTensorType(name);
}

absl::Status AddYarn(const RopeScaling& rope, gguf::HeaderWriter& header) {
  const RopeScaling plain;
  if (rope.attention_factor || rope.mscale || rope.mscale_all_dim ||
      rope.beta_fast != plain.beta_fast || rope.beta_slow != plain.beta_slow ||
      !rope.truncate) {
    return UnsupportedError("rope_scaling",
                            "GGUF files have yarn without parameters");
  }
  header.Add("llama.rope.scaling.original_context_length",
             static_cast<uint32_t>(rope.original_context));
  return absl::OkStatus();
}

absl::Status AddScaling(const RopeScaling& rope, gguf::HeaderWriter& header) {
  if (rope.type == RopeType::kDynamic) {
    return UnsupportedError("rope_scaling.type=dynamic",
                            "GGUF files have linear, yarn and llama3");
  }
  if (rope.type != RopeType::kLinear && rope.type != RopeType::kYarn) {
    return absl::OkStatus();
  }
  header.Add("llama.rope.scaling.type", Name(rope.type));
  header.Add("llama.rope.scaling.factor", static_cast<float>(rope.factor));
  return rope.type == RopeType::kYarn ? AddYarn(rope, header)
                                      : absl::OkStatus();
}

absl::Status AddConfig(const ModelConfig& config, gguf::HeaderWriter& header) {
  const auto size = [](int32_t value) { return static_cast<uint32_t>(value); };
  header.Add("general.architecture", "llama");
  header.Add("general.quantization_version", uint32_t{2});
  header.Add("llama.vocab_size", size(config.vocab_size));
  header.Add("llama.context_length", size(config.context_length()));
  header.Add("llama.embedding_length", size(config.hidden_size));
  header.Add("llama.block_count", size(config.layers));
  header.Add("llama.feed_forward_length", size(config.intermediate_size));
  header.Add("llama.attention.head_count", size(config.heads));
  header.Add("llama.attention.head_count_kv", size(config.kv_heads));
  header.Add("llama.attention.key_length", size(config.head_dim));
  header.Add("llama.attention.value_length", size(config.head_dim));
  header.Add("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps);
  header.Add("llama.rope.dimension_count", size(config.head_dim));
  header.Add("llama.rope.freq_base", static_cast<float>(config.rope_theta));
  return AddScaling(config.rope, header);
}

// What llama3 divides each frequency by; empty for other types.
std::vector<float> RopeDivisors(const ModelConfig& config) {
  if (!config.rope_divisors.empty()) return config.rope_divisors;
  if (config.rope.type != RopeType::kLlama3) return {};
  ModelConfig plain = config;
  plain.rope = RopeScaling();
  const std::vector<float> unscaled = Rope(plain).InverseFrequencies(0, 1);
  std::vector<float> divisors = Rope(config).InverseFrequencies(0, 1);
  for (size_t i = 0; i < divisors.size(); ++i) {
    divisors[i] = unscaled[i] / divisors[i];
  }
  return divisors;
}

absl::Status CheckTarget(const std::string& target) {
  if (!target.ends_with(".gguf")) {
    return FieldError("DST", "a path that ends in .gguf", target);
  }
  std::error_code error;
  if (!std::filesystem::exists(target, error)) return absl::OkStatus();
  return FieldError("DST", "a file that does not exist yet", target);
}

// Writes the tensors of one file in their order.
class Exporter {
 public:
  Exporter(const CheckpointTensors& source, const ModelConfig& config,
           std::string target, const ExportOptions& options)
      : source_(source),
        config_(config),
        target_(std::move(target)),
        options_(options),
        tensors_(AllTensors(MakeLayout(config))),
        divisors_(RopeDivisors(config)) {
    report_.format = source.Describe();
  }

  absl::StatusOr<ExportReport> Run(gguf::HeaderWriter& header);

 private:
  void Append(const void* bytes, size_t count);
  void Pad(uint64_t bytes);
  absl::Status Tensor(const TensorSpec& spec);
  void Rows(const CheckpointTensor& tensor, const TensorSpec& spec,
            int64_t first, int64_t count);
  // Rows of q and k go from halves to neighbours, head by head.
  int64_t RowsAtOnce(const TensorSpec& spec) const;
  int64_t SourceRow(const TensorSpec& spec, int64_t row) const;
  WeightType TypeOf(const TensorSpec& spec) const {
    return TypeFor(spec, config_.tied_embeddings, options_.type);
  }
  absl::Status WriteError() const;

  const CheckpointTensors& source_;
  const ModelConfig& config_;
  const std::string target_;
  const ExportOptions& options_;
  const std::vector<TensorSpec> tensors_;
  const std::vector<float> divisors_;
  std::ofstream out_;
  ExportReport report_;
};

absl::Status Exporter::WriteError() const {
  const std::error_code error(errno, std::generic_category());
  return MakeError(Reason::kInternal,
                   StrCat(target_, ": cannot be written: ", error.message()),
                   {{"file", target_}});
}

void Exporter::Append(const void* bytes, size_t count) {
  out_.write(static_cast<const char*>(bytes),
             static_cast<std::streamsize>(count));
  report_.bytes += count;
}

void Exporter::Pad(uint64_t bytes) {
  constexpr std::array<char, gguf::HeaderWriter::kAlignment> kZeros = {};
  Append(kZeros.data(), gguf::HeaderWriter::Padding(bytes));
}

int64_t Exporter::RowsAtOnce(const TensorSpec& spec) const {
  constexpr int64_t kElements = 1 << 20;
  // Whole heads, and whole runs of the reader.
  const int64_t unit = CheckpointTensors::kRowRun * config_.head_dim;
  const int64_t cols = std::max<int64_t>(spec.cols, 1);
  return std::max<int64_t>(unit, kElements / cols / unit * unit);
}

int64_t Exporter::SourceRow(const TensorSpec& spec, int64_t row) const {
  if (!HasRotatedRows(spec.name)) return row;
  const int64_t j = row % config_.head_dim;
  return row - j + j / 2 + j % 2 * (config_.head_dim / 2);
}

void Exporter::Rows(const CheckpointTensor& tensor, const TensorSpec& spec,
                    int64_t first, int64_t count) {
  const int64_t cols = std::max<int64_t>(spec.cols, 1);
  const WeightType type = TypeOf(spec);
  std::vector<float> rows(static_cast<size_t>(count * cols));
  std::vector<std::byte> bytes(static_cast<size_t>(RowBytes(type, cols)));
  source_.ReadFloats(tensor, first, count, rows.data());
  for (int64_t r = first; r < first + count; ++r) {
    const float* const row = rows.data() + (SourceRow(spec, r) - first) * cols;
    QuantizeRow(type, row, cols, bytes.data());
    Append(bytes.data(), bytes.size());
  }
}

absl::Status Exporter::Tensor(const TensorSpec& spec) {
  CARAVAN_ASSIGN_OR_RETURN(const CheckpointTensor* const tensor,
                           source_.Get(spec.name));
  if (tensor->elements() != spec.elements() ||
      (spec.cols > 0 && tensor->rows() != spec.rows)) {
    return ModelFileError(
        tensor->file, StrCat("tensor ", spec.name),
        StrCat(spec.rows, " x ", std::max<int64_t>(spec.cols, 1)),
        StrCat(tensor->rows(), " x ", tensor->cols()));
  }
  const uint64_t before = report_.bytes;
  if (spec.cols == 0) {
    std::vector<float> vector(static_cast<size_t>(spec.rows));
    source_.ReadFloats(*tensor, 0, tensor->rows(), vector.data());
    std::vector<float> ordered(vector.size());
    for (int64_t i = 0; i < spec.rows; ++i) {
      ordered[i] = vector[SourceRow(spec, i)];
    }
    Append(ordered.data(), ordered.size() * sizeof(float));
  } else {
    const int64_t step = RowsAtOnce(spec);
    for (int64_t first = 0; first < spec.rows; first += step) {
      Rows(*tensor, spec, first, std::min(step, spec.rows - first));
    }
  }
  Pad(report_.bytes - before);
  source_.DropPages(*tensor);
  return out_ ? absl::OkStatus() : WriteError();
}

absl::StatusOr<ExportReport> Exporter::Run(gguf::HeaderWriter& header) {
  int64_t elements = 0;
  for (const TensorSpec& spec : tensors_) {
    const std::array<int64_t, 2> shape = {spec.rows, spec.cols};
    header.AddTensor(*GgufName(spec.name), GgufType(TypeOf(spec)),
                     std::span(shape).first(spec.cols == 0 ? 1 : 2));
    elements += spec.elements();
  }
  if (!divisors_.empty()) {
    const int64_t count = std::ssize(divisors_);
    header.AddTensor(kRopeFrequencies, GgufType(WeightType::kFp32),
                     std::span(&count, 1));
  }
  out_.open(target_, std::ios::binary | std::ios::trunc);
  const std::string text = header.Header();
  Append(text.data(), text.size());
  for (const TensorSpec& spec : tensors_) {
    CARAVAN_RETURN_IF_ERROR(Tensor(spec));
    ++report_.tensors;
    report_.parameters += spec.elements();
    if (options_.progress) {
      options_.progress(static_cast<int>(100 * report_.parameters / elements));
    }
  }
  Append(divisors_.data(), divisors_.size() * sizeof(float));
  Pad(divisors_.size() * sizeof(float));
  out_.close();
  if (!out_) return WriteError();
  return std::move(report_);
}

}  // namespace

absl::StatusOr<ExportReport> ExportGguf(const std::string& source,
                                        const std::string& target,
                                        const ExportOptions& options) {
  if (!CanQuantize(options.type)) {
    return FieldError("--type", "a type that is written", Name(options.type));
  }
  CARAVAN_RETURN_IF_ERROR(CheckTarget(target));
  CARAVAN_ASSIGN_OR_RETURN(const ModelConfig config,
                           LoadModelConfig(source, /*overrides=*/{}));
  CARAVAN_ASSIGN_OR_RETURN(const auto tensors, CheckpointTensors::Open(source));
  gguf::HeaderWriter header;
  CARAVAN_RETURN_IF_ERROR(AddConfig(config, header));
  CARAVAN_RETURN_IF_ERROR(
      AddTokenizerMetadata(source, config.vocab_size, header));
  absl::StatusOr<ExportReport> report =
      Exporter(*tensors, config, target, options).Run(header);
  if (!report.ok()) {
    // Half a model must not stand in the way of the next attempt.
    std::error_code ignored;
    std::filesystem::remove(target, ignored);
  }
  return report;
}

}  // namespace caravan::worker
