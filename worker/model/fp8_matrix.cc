#include "worker/model/fp8_matrix.h"

#include <cmath>
#include <cstring>
#include <optional>
#include <string_view>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"
#include "worker/tensor/fp8.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker {
namespace {

absl::Status TensorError(const TensorRecord& tensor, std::string_view what,
                         std::string_view limit, std::string_view value) {
  return ModelFileError(
      tensor.file,
      StrCat("tensor ", tensor.name, " at offset ", tensor.offset, ": ", what),
      limit, value);
}

std::string ShapeText(const TensorRecord& tensor) {
  std::string text = "[";
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    StrAppend(&text, i > 0 ? ", " : "", tensor.shape[i]);
  }
  return text + "]";
}

// One for all: [], [1], [1, 1]; one for a row: [rows], [rows, 1].
bool HasScalesOf(const TensorRecord& scale, int64_t rows) {
  for (size_t i = 0; i < scale.shape.size(); ++i) {
    if (scale.shape[i] != (i == 0 ? rows : 1)) return false;
  }
  return rows == 1 || !scale.shape.empty();
}

}  // namespace

absl::StatusOr<Fp8Matrix> Fp8Matrix::Make(const TensorRecord& weight,
                                          const TensorRecord* scale) {
  if (weight.dtype_name != "F8_E4M3" || weight.shape.size() != 2) {
    return TensorError(weight, "type", "F8_E4M3 of two sizes",
                       StrCat(weight.dtype_name, " ", ShapeText(weight)));
  }
  if (scale == nullptr) {
    return ModelFileError(weight.file, StrCat("tensor ", weight.name, "_scale"),
                          "in the checkpoint", "absence");
  }
  Fp8Matrix matrix;
  matrix.rows_ = weight.shape[0];
  matrix.cols_ = weight.shape[1];
  matrix.codes_ = weight.data;
  CARAVAN_RETURN_IF_ERROR(matrix.ReadScales(*scale));
  return matrix;
}

absl::Status Fp8Matrix::ReadScales(const TensorRecord& scale) {
  const std::optional<DType> dtype = scale.dtype();
  if (!dtype) {
    return TensorError(scale, "dtype", "F32, BF16 or F16", scale.dtype_name);
  }
  const bool one = HasScalesOf(scale, 1);
  if (!one && !HasScalesOf(scale, rows_)) {
    return TensorError(scale, "shape",
                       StrCat("[1] or [", rows_,
                              ", 1]: one scale, or one for each row; scales of "
                              "blocks are not read here"),
                       ShapeText(scale));
  }
  scales_.resize(static_cast<size_t>(rows_));
  DequantizeRow(FromDType(*dtype), scale.data, one ? 1 : rows_, scales_.data());
  if (one) scales_.assign(scales_.size(), scales_[0]);
  for (size_t r = 0; r < scales_.size(); ++r) {
    if (std::isfinite(scales_[r]) && scales_[r] >= 0) continue;
    return TensorError(scale, StrCat("element ", one ? 0 : r),
                       "finite and not negative", StrCat(scales_[r]));
  }
  return absl::OkStatus();
}

WeightType Fp8Matrix::exact_type() const {
  return cols_ % kFp8Block == 0 ? WeightType::kFp8 : WeightType::kFp32;
}

void Fp8Matrix::WriteRows(int64_t first, int64_t count,
                          std::byte* target) const {
  if (exact_type() == WeightType::kFp32) {
    Dequantize(first, count, reinterpret_cast<float*>(target));
    return;
  }
  for (int64_t r = first; r < first + count; ++r) {
    const float scale = scales_[static_cast<size_t>(r)];
    for (int64_t c = 0; c < cols_; c += kFp8Block) {
      std::memcpy(target, &scale, sizeof(scale));
      std::memcpy(target + sizeof(scale), codes_ + r * cols_ + c, kFp8Block);
      target += kFp8BlockBytes;
    }
  }
}

void Fp8Matrix::Dequantize(int64_t first, int64_t count, float* target) const {
  for (int64_t r = first; r < first + count; ++r) {
    for (int64_t c = 0; c < cols_; ++c) {
      const Fp8 code = {std::to_integer<uint8_t>(codes_[r * cols_ + c])};
      *target++ = ToFloat(code) * scales_[static_cast<size_t>(r)];
    }
  }
}

}  // namespace caravan::worker
