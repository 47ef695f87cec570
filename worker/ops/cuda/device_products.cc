#include "worker/ops/cuda/device_products.h"

#include <algorithm>
#include <map>
#include <random>
#include <tuple>
#include <vector>

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

// Bytes of the largest product of a layer: gates and ups, or qkv.
size_t ProductBytes(const ScratchSpec& spec) {
  return sizeof(float) * spec.max_tokens *
         std::max(2 * spec.widest, spec.qkv_rows);
}

}  // namespace

size_t DeviceProducts::ScratchBytes(const ScratchSpec& spec) const {
  const size_t operands =
      DeviceBuffer::AllocatedBytes(OperandBytes(spec.max_tokens, spec.widest));
  if (by_ == ProductsBy::kKernels) return operands;
  return operands + DeviceBuffer::AllocatedBytes(ProductBytes(spec)) +
         workspace_bytes();
}

absl::Status DeviceProducts::Reserve(const ScratchSpec& spec) {
  CARAVAN_RETURN_IF_ERROR(
      operands_.Get(OperandBytes(spec.max_tokens, spec.widest)).status());
  if (by_ == ProductsBy::kKernels) return absl::OkStatus();
  CARAVAN_RETURN_IF_ERROR(products_.Get(ProductBytes(spec)).status());
  return Measure(spec.max_tokens);
}

void DeviceProducts::Note(const CudaMatrix& w, PackKind kind) {
  if (!w.layout.library) return;
  Noted noted;
  noted.gemm.w = w.buffer.As<uint16_t>();
  noted.gemm.rows = static_cast<int32_t>(w.rows);
  noted.gemm.columns = static_cast<int32_t>(w.cols);
  noted.gemm.adds =
      kind == PackKind::kHeadSegments || kind == PackKind::kGroupSegments;
  noted.alive = w.alive;
  noted_.push_back(noted);
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
                             .halves = nullptr,
                             .fragments = nullptr,
                             .codes = {},
                             .order = OrderFor(rows, w)};
  if (TakesFp8(w)) {
    kernel.codes = Fp8Of(target, rows, w);
  } else if (fragments) {
    kernel.fragments = static_cast<uint32_t*>(target);
  } else if (w.layout.library) {
    kernel.halves = static_cast<uint16_t*>(target);
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
  if (!w.layout.fragments && !w.layout.library) return x;
  CARAVAN_ASSIGN_OR_RETURN(void* const target,
                           operands_.Get(OperandBytes(tokens, w.cols)));
  if (w.layout.library) {
    CARAVAN_RETURN_IF_ERROR(device_.Launch<RoundRowsKernel>(
        {.x = tokens, .threads = RoundRowsKernel::kThreads},
        {.x = x.data,
         .stride = x.stride,
         .columns = w.cols,
         .target = static_cast<uint16_t*>(target)}));
    return DeviceView{static_cast<float*>(target), w.cols};
  }
  if (TakesFp8(w)) {
    CARAVAN_RETURN_IF_ERROR(device_.Launch<PackFp8ActivationsKernel>(
        {.x = RoundUp(tokens, kMmaTokens),
         .threads = PackFp8ActivationsKernel::kThreads,
         .shared_bytes = PackFp8ActivationsKernel::kSharedBytes},
        {.x = x.data,
         .stride = x.stride,
         .tokens = static_cast<int32_t>(tokens),
         .segments = w.layout.segments,
         .target = Fp8Of(target, tokens, w)}));
    return DeviceView{static_cast<float*>(target), w.cols};
  }
  CARAVAN_RETURN_IF_ERROR(device_.Launch<PackActivationsKernel>(
      {.x = RoundUp(tokens, kMmaTokens),
       .threads = PackActivationsKernel::kThreads},
      {.x = x.data,
       .stride = x.stride,
       .tokens = static_cast<int32_t>(tokens),
       .segments = w.layout.segments,
       .target = static_cast<uint32_t*>(target),
       .order = OrderFor(tokens, w)}));
  return DeviceView{static_cast<float*>(target), w.cols};
}

// Codes, then scales: less than the same in bf16.
Fp8Activations DeviceProducts::Fp8Of(void* operand, int64_t tokens,
                                     const CudaMatrix& w) {
  std::byte* const codes = static_cast<std::byte*>(operand);
  const int64_t bytes = RoundUp(tokens, kMmaTokens) * w.layout.segments.depth();
  return {reinterpret_cast<uint32_t*>(codes),
          reinterpret_cast<float*>(codes + bytes)};
}

absl::Status DeviceProducts::Multiply(const DeviceView& x, int64_t tokens,
                                      const CudaMatrix& w,
                                      const Epilogue& epilogue) {
  if (tokens == 0) return absl::OkStatus();
  if (w.layout.library) return MultiplyByLibrary(x, tokens, w, epilogue);
  if (!w.layout.fragments) return MultiplyChains(x, tokens, w, epilogue);
  return OrderFor(tokens, w) == ActivationOrder::kSwizzled
             ? MultiplyWgmma(x, tokens, w, epilogue)
             : MultiplyMma(x, tokens, w, epilogue);
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

template <int kTokenTiles, typename Source>
absl::Status DeviceProducts::LaunchMma(const MmaShape& shape,
                                       const DeviceView& x, int64_t tokens,
                                       const CudaMatrix& w,
                                       const Epilogue& epilogue) {
  using Kernel = MmaGemmKernel<kTokenTiles, Source>;
  LaunchShape launch = shape.launch;
  const float* const scales =
      Source::kFp8Tokens ? Fp8Of(x.data, tokens, w).scales : nullptr;
  launch.shared_bytes += Kernel::kTableBytes;
  return device_.Launch<Kernel>(
      launch, {.w = w.weights(),
               .x = x.data,
               .tokens = static_cast<int32_t>(tokens),
               .row_tiles = static_cast<int32_t>(w.layout.row_tiles),
               .warps = shape.warps,
               .epilogue = epilogue,
               .token_scales = scales});
}

template <typename Source>
absl::Status DeviceProducts::LaunchTiles(const MmaShape& shape,
                                         const DeviceView& x, int64_t tokens,
                                         const CudaMatrix& w,
                                         const Epilogue& epilogue) {
  switch (shape.token_tiles) {
    case 1:
      return LaunchMma<1, Source>(shape, x, tokens, w, epilogue);
    case 2:
      return LaunchMma<2, Source>(shape, x, tokens, w, epilogue);
    case 4:
      return LaunchMma<4, Source>(shape, x, tokens, w, epilogue);
    default:
      return LaunchMma<8, Source>(shape, x, tokens, w, epilogue);
  }
}

absl::Status DeviceProducts::MultiplyMma(const DeviceView& x, int64_t tokens,
                                         const CudaMatrix& w,
                                         const Epilogue& epilogue) {
  const MmaShape shape = ShapeOfMma(w.layout.row_tiles, w.layout.segments.count,
                                    tokens, device_.multiprocessors());
  if (TakesFp8(w)) {
    return LaunchTiles<Fp8TokensSource>(shape, x, tokens, w, epilogue);
  }
  if (w.layout.fp8) {
    return LaunchTiles<Fp8Source>(shape, x, tokens, w, epilogue);
  }
  return w.layout.four_bit
             ? LaunchTiles<FourBitSource>(shape, x, tokens, w, epilogue)
             : LaunchTiles<Bf16Source>(shape, x, tokens, w, epilogue);
}

// Where nothing but the product is wanted, the library writes where it is
// wanted; else beside, and the epilogue is a kernel of its own.
absl::Status DeviceProducts::MultiplyByLibrary(const DeviceView& x,
                                               int64_t tokens,
                                               const CudaMatrix& w,
                                               const Epilogue& epilogue) {
  const bool plain =
      epilogue.bias == nullptr && epilogue.mode != EpilogueMode::kSilu;
  const bool in_place = plain || epilogue.mode == EpilogueMode::kStore;
  DeviceView y = {epilogue.out, epilogue.stride};
  if (!in_place) {
    CARAVAN_ASSIGN_OR_RETURN(void* const products,
                             products_.Get(sizeof(float) * tokens * w.rows));
    y = {static_cast<float*>(products), w.rows};
  }
  LibraryGemm gemm;
  gemm.w = w.buffer.As<uint16_t>();
  gemm.stride = y.stride;
  gemm.rows = static_cast<int32_t>(w.rows);
  gemm.columns = static_cast<int32_t>(w.cols);
  gemm.adds = in_place && epilogue.mode == EpilogueMode::kAdd;
  for (int64_t t = 0; t < tokens; t += w.library_tokens) {
    gemm.x = reinterpret_cast<const uint16_t*>(x.data) + t * w.cols;
    gemm.y = y.data + t * y.stride;
    gemm.tokens =
        static_cast<int32_t>(std::min<int64_t>(w.library_tokens, tokens - t));
    CARAVAN_ASSIGN_OR_RETURN(const LibraryGemm planned, tuner_->Plan(gemm));
    CARAVAN_RETURN_IF_ERROR(device_.Multiply(planned));
  }
  return plain ? absl::OkStatus() : FinishProduct(y, tokens, epilogue);
}

absl::Status DeviceProducts::FinishProduct(const DeviceView& y, int64_t tokens,
                                           const Epilogue& epilogue) {
  return device_.Launch<FinishProductKernel>(
      {.x = tokens,
       .y = CeilDiv(epilogue.columns, FinishProductKernel::kThreads),
       .threads = FinishProductKernel::kThreads},
      {.y = y.data, .stride = y.stride, .epilogue = epilogue});
}

// Each shape over all of its matrices, in steps of all buckets, as far as the
// scratch has room for operands and results.
absl::Status DeviceProducts::Measure(int64_t max_tokens) {
  std::map<std::tuple<int32_t, int32_t, int32_t>, std::vector<const uint16_t*>>
      shapes;
  for (const Noted& noted : noted_) {
    if (noted.alive.expired()) continue;
    const LibraryGemm& gemm = noted.gemm;
    shapes[{gemm.rows, gemm.columns, gemm.adds}].push_back(gemm.w);
  }
  noted_.clear();
  CARAVAN_RETURN_IF_ERROR(FillOperands());
  for (const auto& [shape, weights] : shapes) {
    LibraryGemm gemm;
    std::tie(gemm.rows, gemm.columns, gemm.adds) = shape;
    gemm.w = weights.front();
    CARAVAN_ASSIGN_OR_RETURN(void* const x, operands_.Get(0));
    CARAVAN_ASSIGN_OR_RETURN(void* const y, products_.Get(0));
    gemm.x = static_cast<const uint16_t*>(x);
    gemm.y = static_cast<float*>(y);
    gemm.stride = gemm.rows;
    for (const int32_t tokens : GemmTokenBuckets(max_tokens)) {
      gemm.tokens = static_cast<int32_t>(std::min<int64_t>(tokens, max_tokens));
      const size_t bytes = sizeof(float) * gemm.tokens * gemm.rows;
      if (bytes > products_.bytes()) break;
      CARAVAN_RETURN_IF_ERROR(tuner_->Measure(gemm, weights));
    }
  }
  return tuner_->Save();
}

// Zeros would take less power, and run faster, than what steps multiply.
absl::Status DeviceProducts::FillOperands() {
  std::mt19937 random(1);
  std::vector<uint16_t> values(size_t{1} << 18);
  for (uint16_t& value : values) {  // magnitudes of 2^-7 to 2^-6
    value = static_cast<uint16_t>((random() & 0x807f) | 0x3c00);
  }
  CARAVAN_ASSIGN_OR_RETURN(void* const memory, operands_.Get(0));
  const size_t piece = values.size() * sizeof(uint16_t);
  for (size_t at = 0; at < operands_.bytes(); at += piece) {
    CARAVAN_RETURN_IF_ERROR(
        device_.Upload(static_cast<std::byte*>(memory) + at, values.data(),
                       std::min(piece, operands_.bytes() - at)));
  }
  return absl::OkStatus();
}

template <int kTokens, int kTiles>
absl::Status DeviceProducts::LaunchWgmma(const WgmmaShape& shape,
                                         const DeviceView& x, int64_t tokens,
                                         const CudaMatrix& w,
                                         const Epilogue& epilogue) {
  return device_.Launch<WgmmaGemmKernel<kTokens, kTiles>>(
      shape.launch, {.w = w.weights(),
                     .x = x.data,
                     .tokens = static_cast<int32_t>(tokens),
                     .row_tiles = static_cast<int32_t>(w.layout.row_tiles),
                     .epilogue = epilogue});
}

absl::Status DeviceProducts::MultiplyWgmma(const DeviceView& x, int64_t tokens,
                                           const CudaMatrix& w,
                                           const Epilogue& epilogue) {
  const WgmmaShape shape =
      ShapeOfWgmma(w.layout.row_tiles, w.layout.segments.count, tokens,
                   device_.multiprocessors());
  switch (shape.tokens) {
    case 8:
      return LaunchWgmma<8, 1>(shape, x, tokens, w, epilogue);
    case 32:
      return LaunchWgmma<32, 1>(shape, x, tokens, w, epilogue);
    default:
      return shape.tiles == 1
                 ? LaunchWgmma<128, 1>(shape, x, tokens, w, epilogue)
                 : LaunchWgmma<128, 2>(shape, x, tokens, w, epilogue);
  }
}

}  // namespace caravan::worker::cuda
