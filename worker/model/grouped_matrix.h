// Matrices of small integers with a scale and a zero point for each group of
// inputs, as GPTQ and AWQ store them: packed the other way round, (in, out),
// several codes to a 32-bit word.
#ifndef CARAVAN_WORKER_MODEL_GROUPED_MATRIX_H_
#define CARAVAN_WORKER_MODEL_GROUPED_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/quantization_config.h"
#include "worker/model/safetensors.h"
#include "worker/tensor/dtype.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

// The tensors of one matrix; those that are not there are null.
struct GroupedTensors {
  std::string name;  // of the matrix, for messages
  const TensorRecord* qweight = nullptr;
  const TensorRecord* qzeros = nullptr;
  const TensorRecord* scales = nullptr;
  const TensorRecord* g_idx = nullptr;  // GPTQ only; optional
};

// Some rows (outputs) of a matrix, unpacked.
struct UnpackedRows {
  std::vector<uint8_t> codes;  // (rows, cols)
  std::vector<uint8_t> zeros;  // (rows, groups)
  std::vector<float> scales;   // (rows, groups)
};

// w[r, c] = scale[r, group(c)] * (code[r, c] - zero[r, group(c)]), exact in
// fp32 for scales in binary16. A plain value; reads the checkpoint's bytes,
// which must outlive it. Thread-safe.
class GroupedMatrix {
 public:
  // Errors (kModelFileInvalid) name file, tensor, limit and value: tensors that
  // are missing, of a wrong type, or of shapes that do not fit each other or
  // the group size; groups of g_idx out of range; scales that are not finite.
  static absl::StatusOr<GroupedMatrix> Make(const QuantizationConfig& config,
                                            const GroupedTensors& tensors);

  int64_t rows() const { return rows_; }  // outputs
  int64_t cols() const { return cols_; }  // inputs
  int64_t groups() const { return groups_; }
  int bits() const { return bits_; }
  std::span<const int32_t> group_of_col() const { return group_of_col_; }

  // Rows come in runs of this many: `first` and `count` below are multiples of
  // it, but for the last run.
  static constexpr int64_t kRowRun = 32;
  void Unpack(int64_t first, int64_t count, UnpackedRows& rows) const;
  // All but the codes.
  void UnpackScales(int64_t first, int64_t count, UnpackedRows& rows) const;

  // Rows [first, first + count) in fp32, (count, cols).
  void Dequantize(int64_t first, int64_t count, float* target) const;

 private:
  GroupedMatrix() = default;
  absl::Status ReadShapes(const GroupedTensors& tensors);
  absl::Status ReadGroups(const GroupedTensors& tensors, int64_t group_size);
  absl::Status CheckScales(const GroupedTensors& tensors) const;
  void UnpackGptq(int64_t first, int64_t count, UnpackedRows& rows) const;
  void UnpackAwq(int64_t first, int64_t count, UnpackedRows& rows) const;
  float Scale(int64_t group, int64_t row) const;

  bool awq_ = false;
  int bits_ = 4;
  bool zeros_less_one_ = true;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  int64_t groups_ = 0;
  std::vector<int32_t> group_of_col_;
  const std::byte* words_ = nullptr;  // unaligned
  const std::byte* zeros_ = nullptr;
  const std::byte* scales_ = nullptr;
  DType scale_type_ = DType::kFp16;
};

// A block type that holds a matrix without loss, and the order of columns in
// which it does.
struct ExactBlocks {
  WeightType type = WeightType::kFp32;
  // Stored column c is column order[c]; empty where that is c.
  std::vector<int32_t> order;
};

// The smallest of q4_0, q5_0 and q8_0 that surely holds every weight exactly,
// columns sorted by group where they are not in that order; fp32 where none
// does. Goes by scales and zero points alone.
ExactBlocks FindExactBlocks(const GroupedMatrix& matrix);

// Writes rows [first, first + count), first a multiple of kRowRun, in those
// blocks.
void WriteRows(const GroupedMatrix& matrix, const ExactBlocks& blocks,
               int64_t first, int64_t count, std::byte* target);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_GROUPED_MATRIX_H_
