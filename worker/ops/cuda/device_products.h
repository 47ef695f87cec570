// Products with packed matrices: what rows become before they meet one, and
// which kernel multiplies.
#ifndef CARAVAN_WORKER_OPS_CUDA_DEVICE_PRODUCTS_H_
#define CARAVAN_WORKER_OPS_CUDA_DEVICE_PRODUCTS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/ops/backend.h"
#include "worker/ops/cuda/device.h"
#include "worker/ops/cuda/gemm_tuner.h"
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

// Who multiplies matrices of bf16.
enum class ProductsBy {
  kKernels,  // ours: a row's bits do not depend on the others
  kLibrary,  // the device's library, where it takes the shape
};

// One caller at a time. Operands are good until the next one is made.
class DeviceProducts {
 public:
  // Steps of at least `wgmma_tokens` take wgmma, others mma.sync, where the
  // kernels multiply. `fp8` activations meet matrices of fp8 as codes.
  DeviceProducts(Device* device, ProductsBy by, int64_t wgmma_tokens,
                 bool fp8 = false)
      : device_(*device),
        by_(by),
        wgmma_tokens_(wgmma_tokens),
        fp8_(fp8),
        operands_(device),
        products_(device) {}

  // For matrices that are packed for the library.
  void UseLibrary(GemmTuner* tuner) { tuner_ = tuner; }

  // What Reserve allocates for steps of `spec`, and the library's workspace.
  size_t ScratchBytes(const ScratchSpec& spec) const;
  // Where the library multiplies, also measures its algorithms for the
  // matrices that were noted.
  absl::Status Reserve(const ScratchSpec& spec);
  size_t scratch_bytes() const {
    return operands_.bytes() + products_.bytes() + workspace_bytes();
  }

  // That products with this matrix, of a kind, will be wanted.
  void Note(const CudaMatrix& w, PackKind kind);

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
  absl::Status MultiplyByLibrary(const DeviceView& x, int64_t tokens,
                                 const CudaMatrix& w, const Epilogue& epilogue);
  absl::Status FinishProduct(const DeviceView& y, int64_t tokens,
                             const Epilogue& epilogue);
  absl::Status MultiplyMma(const DeviceView& x, int64_t tokens,
                           const CudaMatrix& w, const Epilogue& epilogue);
  absl::Status MultiplyWgmma(const DeviceView& x, int64_t tokens,
                             const CudaMatrix& w, const Epilogue& epilogue);
  template <typename Source>
  absl::Status LaunchTiles(const MmaShape& shape, const DeviceView& x,
                           int64_t tokens, const CudaMatrix& w,
                           const Epilogue& epilogue);
  template <int kTokenTiles, typename Source>
  absl::Status LaunchMma(const MmaShape& shape, const DeviceView& x,
                         int64_t tokens, const CudaMatrix& w,
                         const Epilogue& epilogue);
  template <int kTokens, int kTiles>
  absl::Status LaunchWgmma(const WgmmaShape& shape, const DeviceView& x,
                           int64_t tokens, const CudaMatrix& w,
                           const Epilogue& epilogue);
  // wgmma takes matrices of bf16.
  ActivationOrder OrderFor(int64_t tokens, const CudaMatrix& w) const {
    return tokens >= wgmma_tokens_ && w.layout.plain_fragments()
               ? ActivationOrder::kSwizzled
               : ActivationOrder::kRegisters;
  }

  // Whether this matrix takes tokens as codes, and where those of an operand
  // lie.
  bool TakesFp8(const CudaMatrix& w) const { return fp8_ && w.layout.fp8; }
  static Fp8Activations Fp8Of(void* operand, int64_t tokens,
                              const CudaMatrix& w);

  size_t workspace_bytes() const {
    return by_ == ProductsBy::kLibrary ? kGemmWorkspaceBytes : 0;
  }
  absl::Status Measure(int64_t max_tokens);
  absl::Status FillOperands();

  // A matrix that products are measured with.
  struct Noted {
    LibraryGemm gemm;
    std::weak_ptr<const int> alive;
  };

  Device& device_;
  const ProductsBy by_;
  const int64_t wgmma_tokens_;
  const bool fp8_;
  GemmTuner* tuner_ = nullptr;
  std::vector<Noted> noted_;
  Scratch operands_;
  Scratch products_;  // of the library, before their epilogue
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_DEVICE_PRODUCTS_H_
