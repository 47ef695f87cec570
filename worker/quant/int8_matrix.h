// q8_0 and q4_0 matrices in the order in which the int8 kernels read them, and
// the literal form of their products that the kernels are tested against.
#ifndef CARAVAN_WORKER_QUANT_INT8_MATRIX_H_
#define CARAVAN_WORKER_QUANT_INT8_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "worker/quant/int8_activations.h"
#include "worker/quant/int8_panel.h"
#include "worker/tensor/buffer.h"
#include "worker/tensor/view.h"

namespace caravan::worker::quant {

// Immutable after packing.
class Int8Matrix {
 public:
  // kUnsupported for types other than q8_0 and q4_0, kMemoryPlan when memory
  // is refused.
  static absl::StatusOr<std::unique_ptr<Int8Matrix>> Pack(
      const RawMatrix& source);

  int64_t panel_count() const;
  // Products of one panel's rows with `x`, (tokens) rows of cols / 32 groups,
  // to out (tokens, 64). Borders count groups; there is one more than segments,
  // of which there are 1 or 8.
  void Multiply(const Int8Table& table, int64_t panel,
                View<const ActivationGroup> x, std::span<const int64_t> borders,
                View<float> out) const;

  size_t bytes() const { return buffer_.size(); }

 private:
  Int8Matrix(const RawMatrix& source, Buffer buffer);
  int vectors_of(int64_t panel) const;
  void PackRow(const RawMatrix& source, int64_t row);

  const WeightType type_;
  const int64_t vectors_;
  const int64_t groups_;
  const int64_t code_bytes_;  // of a vector in a group
  Buffer buffer_;
};

// y = one row of a q8_0 or q4_0 matrix times one row of activations, as
// int8_panel.h defines it.
float ReferenceProduct(WeightType type, const std::byte* row,
                       const ActivationGroup* x,
                       std::span<const int64_t> borders);

}  // namespace caravan::worker::quant

#endif  // CARAVAN_WORKER_QUANT_INT8_MATRIX_H_
