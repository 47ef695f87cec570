// Non-owning views of row-major matrices.
#ifndef CARAVAN_WORKER_TENSOR_VIEW_H_
#define CARAVAN_WORKER_TENSOR_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "worker/tensor/dtype.h"

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
  operator View<const T>() const {  // NOLINT: views convert to const freely
    return View<const T>(data, rows, cols, stride);
  }
};

// A dense matrix as it lies in a checkpoint, (rows, cols) = (out, in). `data`
// may be unaligned.
struct RawMatrix {
  const std::byte* data = nullptr;
  DType dtype = DType::kFp32;
  int64_t rows = 0;
  int64_t cols = 0;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_TENSOR_VIEW_H_
