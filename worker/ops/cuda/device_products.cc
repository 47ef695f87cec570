#include "worker/ops/cuda/device_products.h"

#include <algorithm>

#include "common/status/status_macros.h"

namespace caravan::worker::cuda {
namespace {

// Bytes of activations as a product takes them: fragments or floats, whichever
// is more. Padding of 8 segments is below 8 steps.
size_t OperandBytes(int64_t tokens, int64_t columns) {
  const int64_t depth = columns + kMaxSegments * kStepDepth;
  return std::max(RoundUp(tokens, kMmaTokens) * depth * 2,
                  tokens * columns * 4);
}

}  // namespace

size_t DeviceProducts::ScratchBytes(const ScratchSpec& spec) {
  return DeviceBuffer::AllocatedBytes(
      OperandBytes(spec.max_tokens, spec.widest));
}

absl::Status DeviceProducts::Reserve(const ScratchSpec& spec) {
  return operands_.Get(OperandBytes(spec.max_tokens, spec.widest)).status();
}

absl::StatusOr<DeviceView> DeviceProducts::Norm(const NormInput& input,
                                                int64_t rows,
                                                const CudaMatrix& w) {
  const bool fragments = w.layout.fragments;
  CARAVAN_ASSIGN_OR_RETURN(void* const target,
                           operands_.Get(OperandBytes(rows, w.cols)));
  NormKernel::Args kernel = {.x = input.x.data,
                             .stride = input.x.stride,
                             .tokens = input.tokens,
                             .norm = input.norm,
                             .epsilon = input.epsilon,
                             .rows = static_cast<int32_t>(rows),
                             .segments = w.layout.segments,
                             .floats = nullptr,
                             .fragments = nullptr};
  if (fragments) {
    kernel.fragments = static_cast<uint32_t*>(target);
  } else {
    kernel.floats = static_cast<float*>(target);
  }
  CARAVAN_RETURN_IF_ERROR(device_.Launch<NormKernel>(
      {.x = fragments ? RoundUp(rows, kMmaTokens) : rows,
       .threads = NormKernel::kThreads,
       .shared_bytes = NormKernel::kSharedBytes},
      kernel));
  return DeviceView{static_cast<float*>(target), w.cols};
}

absl::StatusOr<DeviceView> DeviceProducts::Operand(const DeviceView& x,
                                                   int64_t tokens,
                                                   const CudaMatrix& w) {
  if (!w.layout.fragments) return x;
  CARAVAN_ASSIGN_OR_RETURN(void* const target,
                           operands_.Get(OperandBytes(tokens, w.cols)));
  CARAVAN_RETURN_IF_ERROR(device_.Launch<PackActivationsKernel>(
      {.x = RoundUp(tokens, kMmaTokens),
       .threads = PackActivationsKernel::kThreads},
      {.x = x.data,
       .stride = x.stride,
       .tokens = static_cast<int32_t>(tokens),
       .segments = w.layout.segments,
       .target = static_cast<uint32_t*>(target)}));
  return DeviceView{static_cast<float*>(target), w.cols};
}

absl::Status DeviceProducts::Multiply(const DeviceView& x, int64_t tokens,
                                      const CudaMatrix& w,
                                      const Epilogue& epilogue) {
  if (tokens == 0) return absl::OkStatus();
  return w.layout.fragments ? MultiplyMma(x, tokens, w, epilogue)
                            : MultiplyChains(x, tokens, w, epilogue);
}

absl::Status DeviceProducts::MultiplyChains(const DeviceView& x, int64_t tokens,
                                            const CudaMatrix& w,
                                            const Epilogue& epilogue) {
  return device_.Launch<ChainGemmKernel>(
      {.x = CeilDiv(epilogue.columns, ChainGemmKernel::kRows),
       .y = CeilDiv(tokens, ChainGemmKernel::kTokens),
       .threads = ChainGemmKernel::kThreads,
       .shared_bytes = ChainGemmKernel::kSharedBytes},
      {.w = w.weights(),
       .x = x.data,
       .stride = x.stride,
       .tokens = static_cast<int32_t>(tokens),
       .epilogue = epilogue});
}

template <int kTokenTiles>
absl::Status DeviceProducts::LaunchMma(const MmaShape& shape,
                                       const DeviceView& x, int64_t tokens,
                                       const CudaMatrix& w,
                                       const Epilogue& epilogue) {
  return device_.Launch<MmaGemmKernel<kTokenTiles>>(
      shape.launch, {.w = w.weights(),
                     .x = reinterpret_cast<const Words4*>(x.data),
                     .tokens = static_cast<int32_t>(tokens),
                     .row_tiles = static_cast<int32_t>(w.layout.row_tiles),
                     .warps = shape.warps,
                     .epilogue = epilogue});
}

absl::Status DeviceProducts::MultiplyMma(const DeviceView& x, int64_t tokens,
                                         const CudaMatrix& w,
                                         const Epilogue& epilogue) {
  const MmaShape shape = ShapeOfMma(w.layout.row_tiles, w.layout.segments.count,
                                    tokens, device_.multiprocessors());
  switch (shape.token_tiles) {
    case 1:
      return LaunchMma<1>(shape, x, tokens, w, epilogue);
    case 2:
      return LaunchMma<2>(shape, x, tokens, w, epilogue);
    case 4:
      return LaunchMma<4>(shape, x, tokens, w, epilogue);
    default:
      return LaunchMma<8>(shape, x, tokens, w, epilogue);
  }
}

}  // namespace caravan::worker::cuda
