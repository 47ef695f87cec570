// Products with packed matrices: what rows become before they meet one, and
// which kernel multiplies.
#ifndef CARAVAN_WORKER_OPS_CUDA_DEVICE_PRODUCTS_H_
#define CARAVAN_WORKER_OPS_CUDA_DEVICE_PRODUCTS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/backend.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/geometry.h"
#include "worker/ops/cuda/step_inputs.h"
#include "worker/ops/cuda/storage.h"

namespace caravan::worker::cuda {

// Rows of x and how they are normed.
struct NormInput {
  DeviceView x;
  const int32_t* tokens = nullptr;  // which rows of x; null: the first ones
  const float* norm = nullptr;
  float epsilon = 0;
};

// One caller at a time. Operands are good until the next one is made.
class DeviceProducts {
 public:
  explicit DeviceProducts(Device* device)
      : device_(*device), operands_(device) {}

  // What Reserve allocates for steps of `spec`.
  static size_t ScratchBytes(const ScratchSpec& spec);
  absl::Status Reserve(const ScratchSpec& spec);
  size_t scratch_bytes() const { return operands_.bytes(); }

  // The norm of `rows` rows, as `w` takes it.
  absl::StatusOr<DeviceView> Norm(const NormInput& input, int64_t rows,
                                  const CudaMatrix& w);
  // `tokens` rows of x, as `w` takes them.
  absl::StatusOr<DeviceView> Operand(const DeviceView& x, int64_t tokens,
                                     const CudaMatrix& w);
  // x as Norm or Operand gave it.
  absl::Status Multiply(const DeviceView& x, int64_t tokens,
                        const CudaMatrix& w, const Epilogue& epilogue);

 private:
  absl::Status MultiplyChains(const DeviceView& x, int64_t tokens,
                              const CudaMatrix& w, const Epilogue& epilogue);
  absl::Status MultiplyMma(const DeviceView& x, int64_t tokens,
                           const CudaMatrix& w, const Epilogue& epilogue);
  template <int kTokenTiles>
  absl::Status LaunchMma(const MmaShape& shape, const DeviceView& x,
                         int64_t tokens, const CudaMatrix& w,
                         const Epilogue& epilogue);

  Device& device_;
  Scratch operands_;
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_DEVICE_PRODUCTS_H_
