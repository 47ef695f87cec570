// Matrices of e4m3 codes with a scale for each row, or one for all, as
// FBGEMM, compressed-tensors and "fp8" checkpoints store them.
#ifndef CARAVAN_WORKER_MODEL_FP8_MATRIX_H_
#define CARAVAN_WORKER_MODEL_FP8_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/safetensors.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

// w[r, c] = code[r, c] * scale[r], one rounding in fp32. Reads the checkpoint's
// bytes, which must outlive it. Thread-safe.
class Fp8Matrix {
 public:
  // `weight` is F8_E4M3 (rows, cols); `scale` F32, BF16 or F16, one element or
  // `rows` of them, null where there is none. Errors (kModelFileInvalid) name
  // file, tensor, limit and value: scales that are missing, of another type or
  // shape (those of blocks too), not finite or negative.
  static absl::StatusOr<Fp8Matrix> Make(const TensorRecord& weight,
                                        const TensorRecord* scale);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  // kFp8, or kFp32 where rows are no whole blocks.
  WeightType exact_type() const;

  // Rows [first, first + count) in exact_type(), and in fp32.
  void WriteRows(int64_t first, int64_t count, std::byte* target) const;
  void Dequantize(int64_t first, int64_t count, float* target) const;

 private:
  Fp8Matrix() = default;
  absl::Status ReadScales(const TensorRecord& scale);

  int64_t rows_ = 0;
  int64_t cols_ = 0;
  const std::byte* codes_ = nullptr;
  std::vector<float> scales_;  // of rows
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_FP8_MATRIX_H_
