#include "worker/model/checkpoint_tensors.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/bitsandbytes.h"
#include "worker/model/fp8_matrix.h"
#include "worker/model/grouped_matrix.h"
#include "worker/model/json_file.h"
#include "worker/model/parallel.h"
#include "worker/tensor/dtype.h"
#include "worker/tensor/four_bit.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker {
namespace {

using nlohmann::json;

constexpr std::string_view kTorchFile = "pytorch_model.bin";
constexpr std::string_view kTorchIndex = "pytorch_model.bin.index.json";
constexpr std::string_view kOneFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr std::string_view kWeight = ".weight";

bool Has(const std::string& directory, std::string_view name) {
  std::error_code error;
  return std::filesystem::exists(StrCat(directory, "/", name), error);
}

bool HasSafetensors(const std::string& directory) {
  return Has(directory, kOneFile) || Has(directory, kIndexFile);
}

bool HasTorch(const std::string& directory) {
  return Has(directory, kTorchFile) || Has(directory, kTorchIndex);
}

void WidenRows(const CheckpointTensor& tensor, const std::byte* stored,
               int64_t first, int64_t count, float* target) {
  RawMatrix raw(stored, tensor.type, tensor.rows(), tensor.cols());
  raw.interleaved = tensor.interleaved;
  for (int64_t r = first; r < first + count; ++r, target += raw.cols) {
    DequantizeRow(raw, r, target);
  }
}

// The files that an index names.
absl::StatusOr<std::set<std::string>> FilesOf(const std::string& index_path) {
  constexpr JsonLimits kLimits = {.max_bytes = size_t{64} << 20,
                                  .max_depth = 8};
  CARAVAN_ASSIGN_OR_RETURN(const json index,
                           ReadJsonObject(index_path, kLimits));
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) {
    return ModelFileError(index_path, "weight_map", "an object", "none");
  }
  std::set<std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || file.get_ref<const std::string&>().find_first_of(
                                 "/\\") != std::string::npos) {
      return ModelFileError(index_path, StrCat("file of tensor ", tensor),
                            "a name in the same folder", Excerpt(file));
    }
    files.insert(file.get<std::string>());
  }
  return files;
}

std::string WithoutSuffix(std::string_view name, std::string_view suffix) {
  return std::string(name.substr(0, name.size() - suffix.size()));
}

void DropRange(const std::byte* data, size_t bytes) {
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + bytes) / page * page;
  if (first >= last) return;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace

bool HasCheckpoint(const std::string& directory) {
  return HasSafetensors(directory) || HasTorch(directory) ||
         MetaCheckpoint::IsIn(directory) || GgufCheckpoint::IsIn(directory);
}

int64_t CheckpointTensor::cols() const {
  int64_t count = 1;
  for (size_t i = 1; i < shape.size(); ++i) count *= shape[i];
  return count;
}

size_t CheckpointTensor::bytes() const {
  return static_cast<size_t>(rows() * RowBytes(type, cols()));
}

absl::StatusOr<std::unique_ptr<CheckpointTensors>> CheckpointTensors::Open(
    const std::string& directory) {
  std::unique_ptr<CheckpointTensors> all(new CheckpointTensors(directory));
  if (HasSafetensors(directory)) {
    CARAVAN_RETURN_IF_ERROR(all->OpenSafetensors());
  } else if (HasTorch(directory)) {
    CARAVAN_RETURN_IF_ERROR(all->OpenTorch());
  } else if (MetaCheckpoint::IsIn(directory)) {
    CARAVAN_RETURN_IF_ERROR(all->OpenMeta());
    return all;
  } else if (GgufCheckpoint::IsIn(directory)) {
    CARAVAN_RETURN_IF_ERROR(all->OpenGguf());
    return all;
  } else {
    return MakeError(Reason::kNotFound,
                     StrCat(directory, ": has no ", kOneFile, ", ", kTorchFile,
                            ", index of such files, consolidated.00.pth or "
                            "GGUF file"),
                     {{"file", directory}});
  }
  CARAVAN_ASSIGN_OR_RETURN(all->quantization_,
                           LoadQuantizationConfig(directory));
  CARAVAN_RETURN_IF_ERROR(all->Collect());
  return all;
}

absl::Status CheckpointTensors::OpenSafetensors() {
  format_ = "safetensors";
  CARAVAN_ASSIGN_OR_RETURN(safetensors_, Checkpoint::Open(directory_));
  for (const auto& [name, record] : safetensors_->tensors()) {
    records_.emplace(name, record);
  }
  return absl::OkStatus();
}

absl::Status CheckpointTensors::OpenTorch() {
  format_ = "pytorch";
  return Has(directory_, kTorchFile) ? AddTorchFile(std::string(kTorchFile))
                                     : AddTorchShards();
}

absl::Status CheckpointTensors::AddTorchShards() {
  CARAVAN_ASSIGN_OR_RETURN(const std::set<std::string> files,
                           FilesOf(StrCat(directory_, "/", kTorchIndex)));
  for (const std::string& file : files) {
    CARAVAN_RETURN_IF_ERROR(AddTorchFile(file));
  }
  return absl::OkStatus();
}

// A tensor that is not row-major is copied into a buffer.
void CheckpointTensors::AddOwned(const TorchTensor& tensor) {
  TensorRecord record = tensor.record;
  buffers_.push_back(std::make_unique<std::byte[]>(record.bytes));
  CopyTensor(tensor, buffers_.back().get());
  record.data = buffers_.back().get();
  records_.emplace(record.name, std::move(record));
}

absl::Status CheckpointTensors::AddTorchFile(const std::string& name) {
  const std::string path = StrCat(directory_, "/", name);
  CARAVAN_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<TorchTensor> tensors,
                           ParseTorchFile({file.data(), file.size()}, path));
  for (const TorchTensor& tensor : tensors) {
    const TensorRecord* const other = Record(tensor.record.name);
    if (other != nullptr) {
      return ModelFileError(path, StrCat("tensor ", tensor.record.name),
                            "in one file", StrCat("also in ", other->file));
    }
    if (tensor.strides.empty()) {
      records_.emplace(tensor.record.name, tensor.record);
    } else {
      AddOwned(tensor);
    }
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status CheckpointTensors::OpenMeta() {
  format_ = "meta";
  CARAVAN_ASSIGN_OR_RETURN(meta_, MetaCheckpoint::Open(directory_));
  for (const auto& [name, merged] : meta_->tensors()) {
    const std::optional<DType> dtype = merged.record.dtype();
    if (!dtype) {
      return ModelFileError(merged.record.file,
                            StrCat("tensor ", name, ": dtype"),
                            "F32, BF16 or F16", merged.record.dtype_name);
    }
    CheckpointTensor& tensor = tensors_[name];
    tensor.name = name;
    tensor.shape = merged.record.shape;
    tensor.type = FromDType(*dtype);
    tensor.interleaved = merged.interleaved;
    tensor.data = merged.record.data;
    tensor.file = merged.record.file;
    tensor.offset = merged.record.offset;
    for (size_t i = 0; i < merged.parts.size(); ++i) {
      tensor.parts.push_back(merged.parts[i]->record);
      if (merged.parts.size() > 1) {
        StrAppend(&tensor.parts.back().name, "/", i);
      }
    }
    if (tensor.data == nullptr) {
      const MergedTensor* const whole = &merged;
      tensor.write_stored = [whole](int64_t, int64_t, std::byte* target) {
        CopyMerged(*whole, target);
      };
    }
  }
  return absl::OkStatus();
}

absl::Status CheckpointTensors::OpenGguf() {
  format_ = "gguf";
  CARAVAN_ASSIGN_OR_RETURN(gguf_, GgufCheckpoint::Open(directory_));
  for (const GgufTensor& source : gguf_->tensors()) {
    CheckpointTensor& tensor = tensors_[source.name];
    if (!tensor.name.empty()) {
      return ModelFileError(source.record.file,
                            StrCat("tensor ", source.record.name),
                            "in one part", "also in another");
    }
    tensor.name = source.name;
    tensor.shape = source.record.shape;
    tensor.type = source.type;
    tensor.interleaved = source.interleaved;
    tensor.data = source.record.data;
    tensor.file = source.record.file;
    tensor.offset = source.record.offset;
    tensor.parts = {source.record};
  }
  return absl::OkStatus();
}

const TensorRecord* CheckpointTensors::Record(const std::string& name) const {
  const auto found = records_.find(name);
  return found == records_.end() ? nullptr : &found->second;
}

const CheckpointTensor* CheckpointTensors::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

absl::StatusOr<const CheckpointTensor*> CheckpointTensors::Get(
    std::string_view name) const {
  const CheckpointTensor* const tensor = Find(name);
  if (tensor != nullptr) return tensor;
  const TensorRecord* const record = Record(std::string(name));
  if (record == nullptr) {
    return ModelFileError(directory_, StrCat("tensor ", name, ": presence"),
                          "in the checkpoint", "absence");
  }
  return ModelFileError(
      record->file,
      StrCat("tensor ", name, " at offset ", record->offset, ": dtype"),
      "F32, BF16 or F16", record->dtype_name);
}

std::string CheckpointTensors::Describe() const {
  if (!mixed()) return format_;
  std::map<WeightType, int> counts;
  for (const auto& [name, tensor] : tensors_) {
    if (tensor.shape.size() > 1) ++counts[tensor.type];
  }
  std::string text = format_;
  if (quantization_) StrAppend(&text, ", ", Name(quantization_->method));
  std::string_view before = converted_ ? ", converted: " : ": ";
  for (const auto& [type, count] : counts) {
    StrAppend(&text, before, count, " x ", Name(type));
    before = ", ";
  }
  return text;
}

void CheckpointTensors::AddPlain(const TensorRecord& record) {
  const std::optional<DType> dtype = record.dtype();
  if (!dtype) return;  // masks, indices and such are no weights
  CheckpointTensor& tensor = tensors_[record.name];
  tensor.name = record.name;
  tensor.shape = record.shape;
  tensor.type = FromDType(*dtype);
  tensor.data = record.data;
  tensor.file = record.file;
  tensor.offset = record.offset;
  tensor.parts = {record};
}

CheckpointTensor& CheckpointTensors::AddMade(
    const std::string& module, WeightType type, int64_t rows, int64_t cols,
    const std::vector<const TensorRecord*>& parts) {
  const std::string name = StrCat(module, kWeight);
  CheckpointTensor& tensor = tensors_[name];
  tensor = CheckpointTensor();
  tensor.name = name;
  tensor.shape = {rows, cols};
  tensor.type = type;
  tensor.file = parts[0]->file;
  tensor.offset = parts[0]->offset;
  for (const TensorRecord* const part : parts) {
    if (part != nullptr) tensor.parts.push_back(*part);
  }
  return tensor;
}

absl::Status CheckpointTensors::AddGrouped(const std::string& module) {
  if (quantization_->method != QuantizationMethod::kGptq &&
      quantization_->method != QuantizationMethod::kAwq) {
    return ModelFileError(Record(module + ".qweight")->file,
                          StrCat("tensor ", module, ".qweight"),
                          "absent by quantization_config's quant_method",
                          Name(quantization_->method));
  }
  const GroupedTensors tensors = {.name = module,
                                  .qweight = Record(module + ".qweight"),
                                  .qzeros = Record(module + ".qzeros"),
                                  .scales = Record(module + ".scales"),
                                  .g_idx = Record(module + ".g_idx")};
  CARAVAN_ASSIGN_OR_RETURN(const GroupedMatrix made,
                           GroupedMatrix::Make(*quantization_, tensors));
  const auto matrix = std::make_shared<const GroupedMatrix>(made);
  const auto blocks =
      std::make_shared<const ExactBlocks>(FindExactBlocks(*matrix));
  CheckpointTensor& tensor =
      AddMade(module, blocks->type, matrix->rows(), matrix->cols(),
              {tensors.qweight, tensors.qzeros, tensors.scales, tensors.g_idx});
  tensor.order = blocks->order;
  tensor.write_floats = [matrix](int64_t first, int64_t count,
                                 std::byte* target) {
    matrix->Dequantize(first, count, reinterpret_cast<float*>(target));
  };
  tensor.write_stored = tensor.write_floats;
  if (blocks->type != WeightType::kFp32) {
    tensor.write_stored = [matrix, blocks](int64_t first, int64_t count,
                                           std::byte* target) {
      WriteRows(*matrix, *blocks, first, count, target);
    };
  }
  return absl::OkStatus();
}

absl::Status CheckpointTensors::AddFourBit(const std::string& module) {
  const std::string weight = module + std::string(kWeight);
  const std::string state = weight + ".quant_state.bitsandbytes__";
  const TensorRecord* const nf4 = Record(state + "nf4");
  const FourBitTensors tensors = {
      .weight = Record(weight),
      .absmax = Record(weight + ".absmax"),
      .quant_map = Record(weight + ".quant_map"),
      .nested_absmax = Record(weight + ".nested_absmax"),
      .nested_quant_map = Record(weight + ".nested_quant_map"),
      .quant_state = nf4 != nullptr ? nf4 : Record(state + "fp4")};
  if (tensors.weight == nullptr) {
    return ModelFileError(tensors.absmax->file, StrCat("tensor ", weight),
                          "in the checkpoint", "absence");
  }
  CARAVAN_ASSIGN_OR_RETURN(FourBitMatrix made, FourBitMatrix::Make(tensors));
  const auto matrix = std::make_shared<const FourBitMatrix>(std::move(made));
  CheckpointTensor& tensor = AddMade(
      module, matrix->exact_type(), matrix->rows(), matrix->cols(),
      {tensors.weight, tensors.absmax, tensors.quant_map, tensors.nested_absmax,
       tensors.nested_quant_map, tensors.quant_state});
  tensor.write_stored = [matrix](int64_t first, int64_t count,
                                 std::byte* target) {
    matrix->WriteRows(first, count, target);
  };
  tensor.write_floats = [matrix](int64_t first, int64_t count,
                                 std::byte* target) {
    matrix->Dequantize(first, count, reinterpret_cast<float*>(target));
  };
  return absl::OkStatus();
}

absl::Status CheckpointTensors::AddEightBit(const std::string& module) {
  const TensorRecord* const weight = Record(module + std::string(kWeight));
  const TensorRecord* const scb = Record(module + ".SCB");
  if (weight == nullptr) {
    return ModelFileError(scb->file, StrCat("tensor ", module, kWeight),
                          "in the checkpoint", "absence");
  }
  CARAVAN_ASSIGN_OR_RETURN(EightBitMatrix made,
                           EightBitMatrix::Make(*weight, scb));
  const auto matrix = std::make_shared<const EightBitMatrix>(std::move(made));
  CheckpointTensor& tensor = AddMade(module, WeightType::kFp32, matrix->rows(),
                                     matrix->cols(), {weight, scb});
  tensor.write_stored = [matrix](int64_t first, int64_t count,
                                 std::byte* target) {
    matrix->WriteRows(first, count, target);
  };
  tensor.write_floats = tensor.write_stored;
  return absl::OkStatus();
}

absl::Status CheckpointTensors::AddFp8(const std::string& module) {
  const TensorRecord* const weight = Record(module + std::string(kWeight));
  const TensorRecord* const scale = Record(module + ".weight_scale");
  CARAVAN_ASSIGN_OR_RETURN(Fp8Matrix made, Fp8Matrix::Make(*weight, scale));
  const auto matrix = std::make_shared<const Fp8Matrix>(std::move(made));
  CheckpointTensor& tensor =
      AddMade(module, matrix->exact_type(), matrix->rows(), matrix->cols(),
              {weight, scale});
  tensor.write_stored = [matrix](int64_t first, int64_t count,
                                 std::byte* target) {
    matrix->WriteRows(first, count, target);
  };
  tensor.write_floats = [matrix](int64_t first, int64_t count,
                                 std::byte* target) {
    matrix->Dequantize(first, count, reinterpret_cast<float*>(target));
  };
  return absl::OkStatus();
}

absl::Status CheckpointTensors::Collect() {
  constexpr std::string_view kGrouped = ".qweight";
  constexpr std::string_view kFourBit = ".weight.absmax";
  constexpr std::string_view kEightBit = ".SCB";
  std::vector<std::string> grouped, four_bit, eight_bit, fp8;
  std::set<std::string, std::less<>> modules;
  const auto note = [&](std::string_view name, std::string_view suffix,
                        std::vector<std::string>& list) {
    if (!quantization_ || !name.ends_with(suffix)) return;
    list.push_back(WithoutSuffix(name, suffix));
    modules.insert(list.back());
  };
  for (const auto& [name, record] : records_) {
    note(name, kGrouped, grouped);
    note(name, kFourBit, four_bit);
    note(name, kEightBit, eight_bit);
    if (quantization_ && IsFp8(quantization_->method) &&
        record.dtype_name == "F8_E4M3") {
      note(name, kWeight, fp8);
    }
  }
  // Some files only tell how they were trained.
  if (modules.empty()) quantization_.reset();
  // What belongs to a quantized matrix is no tensor of its own.
  for (const auto& [name, record] : records_) {
    size_t end = name.rfind('.');
    bool part = false;
    while (end != std::string::npos && end > 0 && !part) {
      part = modules.contains(name.substr(0, end));
      end = name.rfind('.', end - 1);
    }
    if (!part || name.ends_with(".bias")) AddPlain(record);
  }
  for (const std::string& module : grouped) {
    CARAVAN_RETURN_IF_ERROR(AddGrouped(module));
  }
  for (const std::string& module : four_bit) {
    CARAVAN_RETURN_IF_ERROR(AddFourBit(module));
  }
  for (const std::string& module : eight_bit) {
    CARAVAN_RETURN_IF_ERROR(AddEightBit(module));
  }
  for (const std::string& module : fp8) {
    CARAVAN_RETURN_IF_ERROR(AddFp8(module));
  }
  return absl::OkStatus();
}

void CheckpointTensors::ReadStored(const CheckpointTensor& tensor,
                                   std::byte* target) const {
  if (tensor.data != nullptr) {
    std::memcpy(target, tensor.data, tensor.bytes());
  } else {
    tensor.write_stored(0, tensor.rows(), target);
  }
}

void CheckpointTensors::ReadFloats(const CheckpointTensor& tensor,
                                   int64_t first, int64_t count,
                                   float* target) const {
  if (tensor.write_floats) {
    tensor.write_floats(first, count, reinterpret_cast<std::byte*>(target));
  } else if (tensor.data != nullptr) {
    WidenRows(tensor, tensor.data, first, count, target);
  } else {
    std::vector<std::byte> whole(tensor.bytes());
    tensor.write_stored(0, tensor.rows(), whole.data());
    WidenRows(tensor, whole.data(), first, count, target);
  }
}

void CheckpointTensors::Convert(const std::string& name, WeightType type,
                                int32_t head_dim, int threads) {
  CheckpointTensor& tensor = tensors_.at(name);
  const auto source = std::make_shared<const CheckpointTensor>(tensor);
  tensor.type = type;
  tensor.interleaved = 0;
  tensor.order.clear();
  tensor.data = nullptr;
  tensor.write_floats = nullptr;
  tensor.write_stored = [=, this](int64_t, int64_t, std::byte* target) {
    WriteConverted(*source, type, head_dim, threads, target);
  };
  converted_ = true;
}

void CheckpointTensors::WriteConverted(const CheckpointTensor& tensor,
                                       WeightType type, int32_t head_dim,
                                       int threads, std::byte* target) const {
  constexpr int64_t kElements = 1 << 18;
  const int64_t cols = tensor.cols();
  const int64_t row_bytes = RowBytes(type, cols);
  // Whole heads, and whole runs of the reader.
  const int64_t unit = kRowRun * std::max(head_dim, 1);
  // What is only read as a whole is read once.
  const bool whole = tensor.data == nullptr && !tensor.write_floats;
  const int64_t step =
      whole ? tensor.rows()
            : std::max<int64_t>(unit, kElements / cols / unit * unit);
  const auto convert = [&](size_t piece) {
    const int64_t first = static_cast<int64_t>(piece) * step;
    const int64_t count = std::min(step, tensor.rows() - first);
    std::vector<float> rows(static_cast<size_t>(count * cols));
    ReadFloats(tensor, first, count, rows.data());
    for (int64_t r = 0; r < count; ++r) {
      QuantizeRow(type, rows.data() + r * cols, cols,
                  target + (first + r) * row_bytes);
    }
    return absl::OkStatus();
  };
  const int64_t pieces = (tensor.rows() + step - 1) / step;
  ForEachParallel(static_cast<size_t>(pieces), threads, convert).IgnoreError();
}

void CheckpointTensors::DropPages(const CheckpointTensor& tensor) const {
  for (const TensorRecord& part : tensor.parts) {
    const bool owned = std::any_of(
        buffers_.begin(), buffers_.end(),
        [&](const auto& buffer) { return buffer.get() == part.data; });
    if (!owned) DropRange(part.data, part.bytes);
  }
}

absl::StatusOr<json> CheckpointTensors::Config() const {
  const std::string path = StrCat(directory_, "/config.json");
  if (!Has(directory_, "config.json")) {
    if (meta_ != nullptr) return meta_->config();
    if (gguf_ != nullptr) return gguf_->config();
  }
  return ReadJsonObject(path, JsonLimits());
}

}  // namespace caravan::worker
