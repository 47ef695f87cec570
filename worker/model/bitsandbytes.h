// Matrices as bitsandbytes stores them: 4-bit codes of a table (NF4, FP4) with
// a scale for each block, which may itself be quantized, and 8-bit integers
// with a scale for each row.
#ifndef CARAVAN_WORKER_MODEL_BITSANDBYTES_H_
#define CARAVAN_WORKER_MODEL_BITSANDBYTES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/safetensors.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

// The tensors of one 4-bit matrix P; those that are not there are null.
struct FourBitTensors {
  const TensorRecord* weight = nullptr;            // P
  const TensorRecord* absmax = nullptr;            // P.absmax
  const TensorRecord* quant_map = nullptr;         // P.quant_map
  const TensorRecord* nested_absmax = nullptr;     // P.nested_absmax
  const TensorRecord* nested_quant_map = nullptr;  // P.nested_quant_map
  const TensorRecord* quant_state = nullptr;  // P.quant_state.bitsandbytes__*
};

// w = table[code] * absmax[block], one rounding in fp32; blocks run over the
// elements in row-major order, codes two to a byte, the first in the high half.
// Reads the checkpoint's bytes, which must outlive it. Thread-safe.
class FourBitMatrix {
 public:
  // Errors (kModelFileInvalid) name file, tensor, limit and value: tensors that
  // are missing, of a wrong type or size, a quant_state that is no JSON of the
  // expected keys, scales that are not finite.
  static absl::StatusOr<FourBitMatrix> Make(const FourBitTensors& tensors);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  // kNf4 or kFp4 where the matrix lies in such blocks, else kFp32.
  WeightType exact_type() const { return type_; }

  // Rows [first, first + count) in exact_type(), and in fp32.
  void WriteRows(int64_t first, int64_t count, std::byte* target) const;
  void Dequantize(int64_t first, int64_t count, float* target) const;

 private:
  FourBitMatrix() = default;
  absl::Status ReadState(const TensorRecord& state);
  absl::Status ReadTable(const FourBitTensors& tensors);
  absl::Status ReadScales(const FourBitTensors& tensors);
  absl::Status ReadNestedScales(const FourBitTensors& tensors);
  void ChooseType();
  int CodeAt(int64_t element) const;

  int64_t rows_ = 0;
  int64_t cols_ = 0;
  int64_t block_ = 64;        // elements of a scale
  int64_t nested_block_ = 0;  // scales of a nested scale; 0: not nested
  float nested_offset_ = 0;
  WeightType type_ = WeightType::kFp32;
  std::array<float, 16> table_ = {};
  std::vector<float> scales_;
  const std::byte* codes_ = nullptr;
};

// w[r, c] = q[r, c] * scb[r] / 127, left to right in fp32.
class EightBitMatrix {
 public:
  // `weight` is I8 (rows, cols), `scb` F32 (rows).
  static absl::StatusOr<EightBitMatrix> Make(const TensorRecord& weight,
                                             const TensorRecord* scb);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  // Rows [first, first + count) in fp32.
  void WriteRows(int64_t first, int64_t count, std::byte* target) const;

 private:
  EightBitMatrix() = default;

  int64_t rows_ = 0;
  int64_t cols_ = 0;
  const std::byte* codes_ = nullptr;
  std::vector<float> scales_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_BITSANDBYTES_H_
