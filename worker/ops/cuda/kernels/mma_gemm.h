// y[t, r] = MatMul(x, W) on tensor cores: bf16 times bf16, fp32 accumulators.
// One instruction (mma.sync.m16n8k16) in one orientation serves every number
// of tokens, and an accumulator takes its segment's k in ascending steps of 16,
// so a token's bits do not depend on what else is in the step.
//
// Both operands lie in register order (fragments.h): a warp reads 512
// consecutive bytes of weights with one instruction and nothing goes through
// shared memory but the sums of segments. Floor: the weights' bytes for up to
// about 200 tokens a step; every 8 * kTokenTiles tokens read them again.
// Tokens' operands are read by every warp of the block, from L1.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_MMA_GEMM_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_MMA_GEMM_H_

#include <type_traits>

#include "worker/ops/cuda/kernels/operands.h"

namespace caravan::worker::cuda {

// Hands a lane's sums of 16 packed rows by 8 tokens to the epilogue.
CARAVAN_DEVICE void StoreTile(const Epilogue& epilogue, int32_t tile,
                              int32_t token_tile, int32_t tokens,
                              const float* sums, int lane) {
  CARAVAN_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int64_t token =
        int64_t{token_tile} * kMmaTokens + AccumulatorColumn(lane, i);
    if (token >= tokens) continue;
    if (epilogue.mode == EpilogueMode::kSilu) {
      const int64_t column = int64_t{tile} * 8 + AccumulatorRow(lane, 0);
      if (column < epilogue.columns) {
        epilogue.PutSilu(token, column, sums[i], sums[2 + i]);
      }
      continue;
    }
    const int64_t row = int64_t{tile} * kMmaRows + AccumulatorRow(lane, 0);
    if (row < epilogue.columns) epilogue.Put(token, row, sums[i]);
    if (row + 8 < epilogue.columns) epilogue.Put(token, row + 8, sums[2 + i]);
  }
}

// Operand A from fragments of bf16.
struct Bf16Source {
  static constexpr int kTable = 0;
  static constexpr int kStepsAtOnce = 1;
  static constexpr bool kScaled = false;
  static constexpr bool kFp8Tokens = false;
  struct Step {
    Words4 word[2];
  };
  using Place = const Words4*;

  static CARAVAN_DEVICE Place At(const Weights& w, int64_t tile, int64_t steps,
                                 int lane) {
    return static_cast<const Words4*>(w.data) + tile * steps * 2 * kWarpLanes +
           lane;
  }
  template <typename Thread>
  static CARAVAN_DEVICE void Load(const Weights&, const Place& place,
                                  int64_t step, Step& out, Thread& thread) {
    const Words4* const tile = place + 2 * step * kWarpLanes;
    out.word[0] = thread.LoadStream(tile);
    out.word[1] = thread.LoadStream(tile + kWarpLanes);
  }
  static CARAVAN_DEVICE void Fragment(const Weights&, const Step& step,
                                      int half, const float*,
                                      uint32_t (&a)[4]) {
    CARAVAN_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = step.word[half].word[i];
  }
};

// Sums of codes become products (fp8_gemm.h): the token's scale first, where
// tokens are codes too.
template <typename Source>
CARAVAN_DEVICE void ScaleSums(const Weights& w, const float* token_scales,
                              int32_t tile, int32_t token_tile, int32_t tokens,
                              float* sums, int lane) {
  if constexpr (!Source::kScaled) return;
  CARAVAN_UNROLL
  for (int i = 0; i < 4; ++i) {
    if constexpr (Source::kFp8Tokens) {
      const int64_t token =
          int64_t{token_tile} * kMmaTokens + AccumulatorColumn(lane, i);
      if (token < tokens) sums[i] *= token_scales[token];
    }
    sums[i] *= w.fp8.scales[int64_t{tile} * kMmaRows + AccumulatorRow(lane, i)];
  }
}

// sums += a step's weights times 32 columns of each tile of tokens.
template <typename Source, int kTokenTiles, typename Thread>
CARAVAN_DEVICE void MultiplyStep(const Weights& w,
                                 const typename Source::Step& step,
                                 const float* table,
                                 const void* const (&x)[kTokenTiles],
                                 int64_t place, float (&sums)[kTokenTiles][4],
                                 Thread& thread) {
  if constexpr (Source::kFp8Tokens) {
    CARAVAN_UNROLL
    for (int n = 0; n < kTokenTiles; ++n) {
      const Words2 b = static_cast<const Words2*>(x[n])[place];
      if constexpr (Thread::kHasFp8Mma) {
        thread.MmaFp8(sums[n], step.word, b.word);
      }
    }
  } else {
    uint32_t low[4];
    uint32_t high[4];
    Source::Fragment(w, step, 0, table, low);
    Source::Fragment(w, step, 1, table, high);
    CARAVAN_UNROLL
    for (int n = 0; n < kTokenTiles; ++n) {
      const Words4 b = static_cast<const Words4*>(x[n])[place];
      thread.Mma(sums[n], low, b.word);
      thread.Mma(sums[n], high, b.word + 2);
    }
  }
}

// A warp computes 16 packed rows by 8 * kTokenTiles tokens of one segment.
// With 8 segments a block is one row tile, a warp a segment, and the sums are
// added as Tree8; with one segment a block is as many row tiles as it has
// warps. Grid: (row tiles / warps, token tiles / kTokenTiles), rounded up.
// `Source` says how weights become operand A.
template <int kTokenTiles, typename Source = Bf16Source>
struct MmaGemmKernel {
  static constexpr int kThreads = 256;  // at most
  // Steps of 1 KiB of weights (half of it: twice as many) that a warp has under
  // way: one to two times as many. 3 to 16 warps a multiprocessor need 32 KiB
  // to keep the memory busy.
  static constexpr int kAhead =
      (kTokenTiles <= 2 ? 8 : 4) * Source::kStepsAtOnce;
  static constexpr int kSumsOfTile = 4 * kWarpLanes;
  static constexpr int64_t kSharedBytes =  // with 8 segments
      int64_t{4} * kMaxSegments * kTokenTiles * kSumsOfTile;
  // The source's table lies at the beginning, also with one segment.
  static constexpr int64_t kTableBytes = int64_t{4} * Source::kTable;
  struct Args {
    Weights w;      // the source's
    const void* x;  // Words4 of bf16, or Words2 of codes
    int32_t tokens;
    int32_t row_tiles;
    int32_t warps;  // of a block
    Epilogue epilogue;
    const float* token_scales = nullptr;  // where tokens are codes
  };

  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    float sums[kTokenTiles][4] = {};
    float* const table = static_cast<float*>(thread.shared());
    if constexpr (Source::kTable > 0) {
      if (thread.thread() < Source::kTable) {
        table[thread.thread()] = args.w.four_bit.format.table[thread.thread()];
      }
      thread.Sync();
    }
    const int32_t first = thread.block_y() * kTokenTiles;
    if (args.w.segments.count == 1) {
      const int32_t tile = thread.block_x() * args.warps + thread.warp();
      if (tile >= args.row_tiles) return;
      Accumulate(args, tile, 0, first, sums, thread);
      CARAVAN_UNROLL
      for (int n = 0; n < kTokenTiles; ++n) {
        Put(args, tile, first + n, sums[n], thread);
      }
      return;
    }
    const int32_t tile = thread.block_x();
    Accumulate(args, tile, thread.warp(), first, sums, thread);
    float* const shared = table + Source::kTable;
    float* const own = shared + thread.warp() * kTokenTiles * kSumsOfTile;
    CARAVAN_UNROLL
    for (int n = 0; n < kTokenTiles; ++n) {
      CARAVAN_UNROLL
      for (int i = 0; i < 4; ++i) {
        own[(n * 4 + i) * kWarpLanes + thread.lane()] = sums[n][i];
      }
    }
    thread.Sync();
    for (int n = thread.warp(); n < kTokenTiles; n += kMaxSegments) {
      float total[4];
      CARAVAN_UNROLL
      for (int i = 0; i < 4; ++i) {
        total[i] = Tree8(shared + (n * 4 + i) * kWarpLanes + thread.lane(),
                         kTokenTiles * kSumsOfTile);
      }
      Put(args, tile, first + n, total, thread);
    }
  }

 private:
  template <typename Thread>
  static CARAVAN_DEVICE void Put(const Args& args, int32_t tile,
                                 int32_t token_tile, float* sums,
                                 Thread& thread) {
    ScaleSums<Source>(args.w, args.token_scales, tile, token_tile, args.tokens,
                      sums, thread.lane());
    StoreTile(args.epilogue, tile, token_tile, args.tokens, sums,
              thread.lane());
  }

  template <typename Thread>
  static CARAVAN_DEVICE void Accumulate(const Args& args, int32_t tile,
                                        int segment, int32_t first,
                                        float (&sums)[kTokenTiles][4],
                                        Thread& thread) {
    const SegmentTable& segments = args.w.segments;
    const int64_t steps = segments.depth() / kStepDepth;
    const int32_t end = segments.padded[segment + 1] / kStepDepth;
    const int32_t tiles = (args.tokens + kMmaTokens - 1) / kMmaTokens;
    const typename Source::Place w =
        Source::At(args.w, tile, steps, thread.lane());
    using Tokens = std::conditional_t<Source::kFp8Tokens, Words2, Words4>;
    const void* x[kTokenTiles];
    CARAVAN_UNROLL
    for (int n = 0; n < kTokenTiles; ++n) {
      // Beyond the last tile of tokens: the last again, and not stored.
      const int32_t own = first + n < tiles ? first + n : tiles - 1;
      x[n] = static_cast<const Tokens*>(args.x) +
             int64_t{own} * steps * kWarpLanes + thread.lane();
    }
    // The next steps' weights are on their way while these are multiplied.
    typename Source::Step now[kAhead];
    typename Source::Step next[kAhead];
    const float* const table = static_cast<const float*>(thread.shared());
    const int32_t begin = segments.padded[segment] / kStepDepth;
    Load(args.w, w, begin, end, now, thread);
    for (int32_t step = begin; step < end; step += kAhead) {
      Load(args.w, w, step + kAhead, end, next, thread);
      CARAVAN_UNROLL
      for (int u = 0; u < kAhead; ++u) {
        if (step + u >= end) break;
        MultiplyStep<Source>(args.w, now[u], table, x,
                             int64_t{step + u} * kWarpLanes, sums, thread);
      }
      CARAVAN_UNROLL
      for (int u = 0; u < kAhead; ++u) now[u] = next[u];
    }
  }

  // Weights of steps [step, step + kAhead), up to `end`.
  template <typename Thread>
  static CARAVAN_DEVICE void Load(const Weights& w,
                                  const typename Source::Place& place,
                                  int32_t step, int32_t end,
                                  typename Source::Step (&out)[kAhead],
                                  Thread& thread) {
    CARAVAN_UNROLL
    for (int u = 0; u < kAhead; ++u) {
      if (step + u >= end) break;
      Source::Load(w, place, step + u, out[u], thread);
    }
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_MMA_GEMM_H_
