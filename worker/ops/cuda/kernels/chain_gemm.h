// y[t, r] = MatMul(x, W) in fp32 (ops.h): every output element is the chain of
// one thread, so the bits are the reference's. For classes with fp32
// activations, and for weights that are not of bf16; parity, not speed. Floor:
// 2 T R K flops of plain fma; a weight is read once per 16 tokens.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_CHAIN_GEMM_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_CHAIN_GEMM_H_

#include "worker/ops/cuda/kernels/operands.h"

namespace caravan::worker::cuda {

// A block computes 32 rows (a warp's lanes) by 16 tokens (4 for each of its 4
// warps). Weights: plain rows. Grid: (columns / 32, T / 16), rounded up.
struct ChainGemmKernel {
  static constexpr int kThreads = 128;
  static constexpr int kRows = 32;
  static constexpr int kTokens = 16;
  static constexpr int kTokensOfThread = 4;
  static constexpr int kDepth = 32;          // columns staged at a time
  static constexpr int kPitch = kDepth + 1;  // so that banks do not collide
  static constexpr int kSharedBytes = (kRows + kTokens) * kPitch * 4;
  struct Args {
    Weights w;
    const float* x;
    int64_t stride;
    int32_t tokens;
    Epilogue epilogue;
  };

  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t column = int64_t{thread.block_x()} * kRows + thread.lane();
    const int64_t first = int64_t{thread.block_y()} * kTokens;
    const int64_t rows = args.epilogue.columns;
    float y[kTokensOfThread];
    float up[kTokensOfThread];
    const bool silu = args.epilogue.mode == EpilogueMode::kSilu;
    Product(args, int64_t{thread.block_x()} * kRows, rows, first, y, thread);
    if (silu) {  // up's rows follow gate's
      Product(args, rows + int64_t{thread.block_x()} * kRows, 2 * rows, first,
              up, thread);
    }
    if (column >= rows) return;
    CARAVAN_UNROLL
    for (int j = 0; j < kTokensOfThread; ++j) {
      const int64_t t = first + thread.warp() * kTokensOfThread + j;
      if (t >= args.tokens) continue;
      if (silu) {
        args.epilogue.PutSilu(t, column, y[j], up[j]);
      } else {
        args.epilogue.Put(t, column, y[j]);
      }
    }
  }

 private:
  // y[j] = the product's element (row_begin + lane, token j of this thread).
  template <typename Thread>
  static CARAVAN_DEVICE void Product(const Args& args, int64_t row_begin,
                                     int64_t row_end, int64_t first, float* y,
                                     Thread& thread) {
    const SegmentTable& segments = args.w.segments;
    float sums[kMaxSegments][kTokensOfThread];
    CARAVAN_UNROLL
    for (int s = 0; s < kMaxSegments; ++s) {
      CARAVAN_UNROLL
      for (int j = 0; j < kTokensOfThread; ++j) sums[s][j] = 0.0f;
      if (s < segments.count) {
        Chain(args, row_begin, row_end, first, s, sums[s], thread);
      }
    }
    CARAVAN_UNROLL
    for (int j = 0; j < kTokensOfThread; ++j) {
      y[j] = segments.count == 1 ? sums[0][j]
                                 : Tree8(&sums[0][j], kTokensOfThread);
    }
  }

  template <typename Thread>
  static CARAVAN_DEVICE void Chain(const Args& args, int64_t row_begin,
                                   int64_t row_end, int64_t first, int segment,
                                   float* sums, Thread& thread) {
    float* const w = reinterpret_cast<float*>(thread.shared());
    float* const x = w + kRows * kPitch;
    const int64_t end = args.w.segments.begin[segment + 1];
    for (int64_t begin = args.w.segments.begin[segment]; begin < end;
         begin += kDepth) {
      const int depth =
          static_cast<int>(end - begin < kDepth ? end - begin : kDepth);
      for (int i = thread.thread(); i < kRows * kDepth; i += kThreads) {
        const int64_t row = row_begin + i / kDepth;
        const int k = i % kDepth;
        w[i / kDepth * kPitch + k] =
            row < row_end && k < depth ? args.w.Read(row, begin + k) : 0.0f;
      }
      for (int i = thread.thread(); i < kTokens * kDepth; i += kThreads) {
        const int64_t t = first + i / kDepth;
        const int k = i % kDepth;
        x[i / kDepth * kPitch + k] = t < args.tokens && k < depth
                                         ? args.x[t * args.stride + begin + k]
                                         : 0.0f;
      }
      thread.Sync();
      const float* const own = w + thread.lane() * kPitch;
      const float* const tokens = x + thread.warp() * kTokensOfThread * kPitch;
      for (int k = 0; k < depth; ++k) {
        CARAVAN_UNROLL
        for (int j = 0; j < kTokensOfThread; ++j) {
          sums[j] = std::fma(own[k], tokens[j * kPitch + k], sums[j]);
        }
      }
      thread.Sync();
    }
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_CHAIN_GEMM_H_
