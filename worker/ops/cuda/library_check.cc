#include "worker/ops/cuda/library_check.h"

#include <cstring>
#include <random>
#include <vector>

#include "common/status/status_macros.h"
#include "worker/ops/cuda/gemm_algorithms.h"

namespace caravan::worker::cuda {
namespace {

class Comparison {
 public:
  Comparison(Device* device, DeviceProducts& products, int64_t rows,
             int64_t columns)
      : device_(*device), products_(products), rows_(rows), columns_(columns) {}

  absl::Status Prepare(int64_t tokens) {
    std::mt19937 random(1);
    std::vector<float> x(static_cast<size_t>(tokens * columns_));
    for (float& value : x) {  // in [-1, 1), of every magnitude
      value = static_cast<float>(static_cast<int32_t>(random())) * 0x1p-31f;
      value *= value * value;
    }
    CARAVAN_ASSIGN_OR_RETURN(
        x_, DeviceBuffer::Allocate(&device_, x.size() * sizeof(float)));
    CARAVAN_ASSIGN_OR_RETURN(
        y_, DeviceBuffer::Allocate(&device_, sizeof(float) * tokens * rows_));
    return device_.Upload(x_.data(), x.data(), x.size() * sizeof(float));
  }

  absl::StatusOr<bool> Equal(int64_t tokens, const CudaMatrix& ours,
                             const CudaMatrix& library) {
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<float> a, Run(tokens, ours));
    CARAVAN_ASSIGN_OR_RETURN(const std::vector<float> b, Run(tokens, library));
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }

 private:
  absl::StatusOr<std::vector<float>> Run(int64_t tokens, const CudaMatrix& w) {
    CARAVAN_ASSIGN_OR_RETURN(
        const DeviceView operand,
        products_.Operand({x_.As<float>(), columns_}, tokens, w));
    Epilogue epilogue;
    epilogue.out = y_.As<float>();
    epilogue.stride = rows_;
    epilogue.columns = static_cast<int32_t>(rows_);
    CARAVAN_RETURN_IF_ERROR(products_.Multiply(operand, tokens, w, epilogue));
    std::vector<float> y(static_cast<size_t>(tokens * rows_));
    CARAVAN_RETURN_IF_ERROR(
        device_.Download(y.data(), y_.data(), y.size() * sizeof(float)));
    return y;
  }

  Device& device_;
  DeviceProducts& products_;
  const int64_t rows_;
  const int64_t columns_;
  DeviceBuffer x_, y_;
};

}  // namespace

absl::StatusOr<int32_t> TokensOfEqualBits(Device* device,
                                          DeviceProducts& products,
                                          const CudaMatrix& ours,
                                          const CudaMatrix& library,
                                          int32_t most) {
  Comparison comparison(device, products, ours.rows, ours.cols);
  CARAVAN_RETURN_IF_ERROR(comparison.Prepare(most));
  int32_t equal = 0;
  for (const int32_t bucket : GemmTokenBuckets(most)) {
    if (bucket > most) break;
    for (const int32_t tokens : {equal + 1, bucket}) {
      CARAVAN_ASSIGN_OR_RETURN(const bool same,
                               comparison.Equal(tokens, ours, library));
      if (!same) return equal;
    }
    equal = bucket;
  }
  return equal;
}

}  // namespace caravan::worker::cuda
