#include "worker/model/bitsandbytes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"
#include "worker/tensor/four_bit.h"

namespace caravan::worker {
namespace {

using nlohmann::json;

constexpr int64_t kMostSize = int64_t{1} << 24;
constexpr int64_t kMostBlock = int64_t{1} << 16;
constexpr int64_t kNestedMap = 256;  // values of an 8-bit scale

absl::Status TensorError(const TensorRecord& tensor, std::string_view what,
                         std::string_view limit, std::string_view value) {
  return ModelFileError(
      tensor.file,
      StrCat("tensor ", tensor.name, " at offset ", tensor.offset, ": ", what),
      limit, value);
}

absl::Status Missing(const TensorRecord& weight, std::string_view part) {
  return ModelFileError(weight.file, StrCat("tensor ", weight.name, ".", part),
                        "in the checkpoint", "absence");
}

absl::Status CheckTensor(const TensorRecord& tensor, std::string_view dtype,
                         int64_t count) {
  int64_t elements = 1;
  for (const int64_t size : tensor.shape) {
    elements = size > 0 && elements > kMostSize * kMostSize / size
                   ? kMostSize * kMostSize
                   : elements * size;
  }
  if (tensor.dtype_name == dtype && elements == count) return absl::OkStatus();
  return TensorError(tensor, "type and size",
                     StrCat(dtype, ", ", count, " elements"),
                     StrCat(tensor.dtype_name, ", ", elements));
}

float FloatAt(const TensorRecord& tensor, int64_t index) {
  float value = 0;
  std::memcpy(&value, tensor.data + index * sizeof(value), sizeof(value));
  return value;
}

absl::StatusOr<std::vector<float>> ReadFloats(const TensorRecord& tensor,
                                              int64_t count) {
  CARAVAN_RETURN_IF_ERROR(CheckTensor(tensor, "F32", count));
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    values[i] = FloatAt(tensor, i);
    if (std::isfinite(values[i])) continue;
    return TensorError(tensor, StrCat("element ", i), "finite", "not");
  }
  return values;
}

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

absl::Status FourBitMatrix::ReadState(const TensorRecord& state) {
  if (state.dtype_name != "U8") {
    return TensorError(state, "dtype", "U8", state.dtype_name);
  }
  const std::string file =
      StrCat(state.file, ": tensor ", state.name, " at offset ", state.offset);
  const std::string_view text(reinterpret_cast<const char*>(state.data),
                              state.bytes);
  CARAVAN_ASSIGN_OR_RETURN(
      const json object,
      ParseJsonObject(text, file, {.max_bytes = 1 << 16, .max_depth = 4}));
  const JsonReader reader(&object, file);
  const json* const shape = reader.Find("shape");
  const auto is_size = [](const json& value) {
    return value.is_number_unsigned() && value.get<uint64_t>() > 0 &&
           value.get<uint64_t>() <= static_cast<uint64_t>(kMostSize);
  };
  if (shape == nullptr || !shape->is_array() || shape->size() != 2 ||
      !is_size((*shape)[0]) || !is_size((*shape)[1])) {
    return reader.Error("shape", StrCat("two sizes in [1, ", kMostSize, "]"),
                        shape == nullptr ? "nothing" : Excerpt(*shape));
  }
  rows_ = (*shape)[0].get<int64_t>();
  cols_ = (*shape)[1].get<int64_t>();
  CARAVAN_ASSIGN_OR_RETURN(block_,
                           reader.RequiredInt("blocksize", 1, kMostBlock));
  CARAVAN_ASSIGN_OR_RETURN(const auto nested,
                           reader.Int("nested_blocksize", 1, kMostBlock));
  nested_block_ = nested.value_or(0);
  CARAVAN_ASSIGN_OR_RETURN(const auto offset,
                           reader.Number("nested_offset", -1e30, 1e30));
  nested_offset_ = static_cast<float>(offset.value_or(0));
  return absl::OkStatus();
}

absl::Status FourBitMatrix::ReadTable(const FourBitTensors& tensors) {
  if (tensors.quant_map == nullptr) {
    return Missing(*tensors.weight, "quant_map");
  }
  CARAVAN_ASSIGN_OR_RETURN(
      const std::vector<float> table,
      ReadFloats(*tensors.quant_map, static_cast<int64_t>(table_.size())));
  std::copy(table.begin(), table.end(), table_.begin());
  return absl::OkStatus();
}

absl::Status FourBitMatrix::ReadNestedScales(const FourBitTensors& tensors) {
  const int64_t count = CeilDivide(rows_ * cols_, block_);
  if (tensors.nested_absmax == nullptr) {
    return Missing(*tensors.weight, "nested_absmax");
  }
  if (tensors.nested_quant_map == nullptr) {
    return Missing(*tensors.weight, "nested_quant_map");
  }
  CARAVAN_RETURN_IF_ERROR(CheckTensor(*tensors.absmax, "U8", count));
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<float> map,
                           ReadFloats(*tensors.nested_quant_map, kNestedMap));
  CARAVAN_ASSIGN_OR_RETURN(
      const std::vector<float> nested,
      ReadFloats(*tensors.nested_absmax, CeilDivide(count, nested_block_)));
  scales_.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const auto code = std::to_integer<size_t>(tensors.absmax->data[i]);
    const float product = map[code] * nested[i / nested_block_];
    scales_[i] = product + nested_offset_;
  }
  return absl::OkStatus();
}

absl::Status FourBitMatrix::ReadScales(const FourBitTensors& tensors) {
  if (tensors.absmax == nullptr) return Missing(*tensors.weight, "absmax");
  if (nested_block_ > 0) return ReadNestedScales(tensors);
  CARAVAN_ASSIGN_OR_RETURN(
      scales_, ReadFloats(*tensors.absmax, CeilDivide(rows_ * cols_, block_)));
  return absl::OkStatus();
}

void FourBitMatrix::ChooseType() {
  if (cols_ % kFourBitBlock != 0 || block_ % kFourBitBlock != 0) return;
  if (table_ == kNf4Values) {
    type_ = WeightType::kNf4;
  } else if (table_ == kFp4Values) {
    type_ = WeightType::kFp4;
  }
}

absl::StatusOr<FourBitMatrix> FourBitMatrix::Make(
    const FourBitTensors& tensors) {
  FourBitMatrix matrix;
  if (tensors.quant_state == nullptr) {
    return Missing(*tensors.weight, "quant_state.bitsandbytes__nf4");
  }
  CARAVAN_RETURN_IF_ERROR(matrix.ReadState(*tensors.quant_state));
  const int64_t elements = matrix.rows_ * matrix.cols_;
  // Any dtype will do: its bytes are what counts.
  if (tensors.weight->bytes != static_cast<size_t>(CeilDivide(elements, 2))) {
    return TensorError(
        *tensors.weight, "bytes",
        StrCat(CeilDivide(elements, 2), " by shape [", matrix.rows_, ", ",
               matrix.cols_, "] of its quant_state"),
        StrCat(tensors.weight->bytes));
  }
  matrix.codes_ = tensors.weight->data;
  CARAVAN_RETURN_IF_ERROR(matrix.ReadTable(tensors));
  CARAVAN_RETURN_IF_ERROR(matrix.ReadScales(tensors));
  matrix.ChooseType();
  return matrix;
}

int FourBitMatrix::CodeAt(int64_t element) const {
  const int pair = std::to_integer<int>(codes_[element / 2]);
  return element % 2 == 0 ? pair >> 4 : pair & 15;
}

void FourBitMatrix::Dequantize(int64_t first, int64_t count,
                               float* target) const {
  const int64_t end = (first + count) * cols_;
  for (int64_t i = first * cols_; i < end; ++i) {
    *target++ = table_[CodeAt(i)] * scales_[i / block_];
  }
}

void FourBitMatrix::WriteRows(int64_t first, int64_t count,
                              std::byte* target) const {
  if (type_ == WeightType::kFp32) {
    Dequantize(first, count, reinterpret_cast<float*>(target));
    return;
  }
  const int64_t end = (first + count) * cols_;
  for (int64_t i = first * cols_; i < end; i += kFourBitBlock) {
    const float scale = scales_[i / block_];
    std::memcpy(target, &scale, sizeof(scale));
    std::memcpy(target + sizeof(scale), codes_ + i / 2, kFourBitBlock / 2);
    target += kFourBitBlockBytes;
  }
}

absl::StatusOr<EightBitMatrix> EightBitMatrix::Make(const TensorRecord& weight,
                                                    const TensorRecord* scb) {
  if (weight.dtype_name != "I8" || weight.shape.size() != 2) {
    return TensorError(weight, "type", "I8 of two sizes", weight.dtype_name);
  }
  if (scb == nullptr) return Missing(weight, "SCB");
  EightBitMatrix matrix;
  matrix.rows_ = weight.shape[0];
  matrix.cols_ = weight.shape[1];
  matrix.codes_ = weight.data;
  CARAVAN_ASSIGN_OR_RETURN(matrix.scales_, ReadFloats(*scb, matrix.rows_));
  return matrix;
}

void EightBitMatrix::WriteRows(int64_t first, int64_t count,
                               std::byte* target) const {
  for (int64_t r = first; r < first + count; ++r) {
    for (int64_t c = 0; c < cols_; ++c) {
      const auto code = std::to_integer<uint8_t>(codes_[r * cols_ + c]);
      const float value =
          static_cast<float>(static_cast<int8_t>(code)) * scales_[r] / 127.0f;
      std::memcpy(target, &value, sizeof(value));
      target += sizeof(value);
    }
  }
}

}  // namespace caravan::worker
