// Non-owning views of row-major matrices.
#ifndef CARAVAN_WORKER_TENSOR_VIEW_H_
#define CARAVAN_WORKER_TENSOR_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "worker/tensor/dtype.h"
#include "worker/tensor/weight_type.h"

namespace caravan::worker {

// (rows, cols), element (r, c) at data[r * stride + c].
template <typename T>
struct View {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  View() = default;
  View(T* d, int64_t r, int64_t c) : data(d), rows(r), cols(c), stride(c) {}
  View(T* d, int64_t r, int64_t c, int64_t s)
      : data(d), rows(r), cols(c), stride(s) {}

  T* row(int64_t r) const { return data + r * stride; }
  View Rows(int64_t first, int64_t count) const {
    return View(data + first * stride, count, cols, stride);
  }
  View Columns(int64_t first, int64_t count) const {
    return View(data + first, rows, count, stride);
  }
  operator View<const T>() const {  // NOLINT: views convert to const freely
    return View<const T>(data, rows, cols, stride);
  }
};

// A matrix as it lies in a checkpoint, (rows, cols) = (out, in), or part of
// one. `data` may be unaligned.
struct RawMatrix {
  const std::byte* data = nullptr;
  WeightType type = WeightType::kFp32;
  int64_t rows = 0;
  int64_t cols = 0;  // a multiple of the type's block
  // Columns from one row to the next in memory: `cols` of a whole matrix.
  int64_t stored_cols = 0;
  // 0: rows lie in their order. Else rows lie interleaved inside each run of
  // this many, a head of d rows: row j of the run's first half at 2j, row
  // j + d/2 at 2j + 1. Only row() needs to know.
  int64_t interleaved = 0;

  RawMatrix() = default;
  RawMatrix(const std::byte* d, WeightType t, int64_t r, int64_t c)
      : data(d), type(t), rows(r), cols(c), stored_cols(c) {}
  RawMatrix(const std::byte* d, DType t, int64_t r, int64_t c)
      : RawMatrix(d, FromDType(t), r, c) {}

  int64_t row_bytes() const { return RowBytes(type, cols); }
  // Bytes of row `r`, wherever it lies.
  const std::byte* row(int64_t r) const {
    return data + StoredRow(r) * RowBytes(type, stored_cols);
  }
  // Rows [first, first + count); interleaved runs must be whole.
  RawMatrix Rows(int64_t first, int64_t count) const {
    RawMatrix part = *this;
    if (data != nullptr) part.data += first * RowBytes(type, stored_cols);
    part.rows = count;
    return part;
  }
  // Columns [first, first + count); both multiples of the type's block.
  RawMatrix Columns(int64_t first, int64_t count) const {
    RawMatrix part = *this;
    if (data != nullptr) part.data += RowBytes(type, first);
    part.cols = count;
    return part;
  }
  int64_t StoredRow(int64_t r) const {
    if (interleaved == 0) return r;
    const int64_t half = interleaved / 2;
    const int64_t j = r % interleaved;
    return r - j + (j < half ? 2 * j : 2 * (j - half) + 1);
  }
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_TENSOR_VIEW_H_
