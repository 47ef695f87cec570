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

// A warp computes 16 packed rows by 8 * kTokenTiles tokens of one segment.
// With 8 segments a block is one row tile, a warp a segment, and the sums are
// added as Tree8; with one segment a block is as many row tiles as it has
// warps. Grid: (row tiles / warps, token tiles / kTokenTiles), rounded up.
template <int kTokenTiles>
struct MmaGemmKernel {
  static constexpr int kThreads = 256;  // at most
  // Steps of 1 KiB of weights that a warp has under way: one to two times as
  // many. 3 to 16 warps a multiprocessor need 32 KiB to keep the memory busy.
  static constexpr int kAhead = kTokenTiles <= 2 ? 8 : 4;
  static constexpr int kSumsOfTile = 4 * kWarpLanes;
  static constexpr int64_t kSharedBytes =  // with 8 segments
      int64_t{4} * kMaxSegments * kTokenTiles * kSumsOfTile;
  struct Args {
    Weights w;  // fragments
    const Words4* x;
    int32_t tokens;
    int32_t row_tiles;
    int32_t warps;  // of a block
    Epilogue epilogue;
  };

  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    float sums[kTokenTiles][4] = {};
    const int32_t first = thread.block_y() * kTokenTiles;
    if (args.w.segments.count == 1) {
      const int32_t tile = thread.block_x() * args.warps + thread.warp();
      if (tile >= args.row_tiles) return;
      Accumulate(args, tile, 0, first, sums, thread);
      CARAVAN_UNROLL
      for (int n = 0; n < kTokenTiles; ++n) {
        StoreTile(args.epilogue, tile, first + n, args.tokens, sums[n],
                  thread.lane());
      }
      return;
    }
    const int32_t tile = thread.block_x();
    Accumulate(args, tile, thread.warp(), first, sums, thread);
    float* const shared = reinterpret_cast<float*>(thread.shared());
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
      StoreTile(args.epilogue, tile, first + n, args.tokens, total,
                thread.lane());
    }
  }

 private:
  template <typename Thread>
  static CARAVAN_DEVICE void Accumulate(const Args& args, int32_t tile,
                                        int segment, int32_t first,
                                        float (&sums)[kTokenTiles][4],
                                        Thread& thread) {
    const SegmentTable& segments = args.w.segments;
    const int64_t steps = segments.depth() / kStepDepth;
    const int32_t end = segments.padded[segment + 1] / kStepDepth;
    const int32_t tiles = (args.tokens + kMmaTokens - 1) / kMmaTokens;
    const Words4* const w = static_cast<const Words4*>(args.w.data) +
                            int64_t{tile} * steps * 2 * kWarpLanes +
                            thread.lane();
    const Words4* x[kTokenTiles];
    CARAVAN_UNROLL
    for (int n = 0; n < kTokenTiles; ++n) {
      // Beyond the last tile of tokens: the last again, and not stored.
      const int32_t own = first + n < tiles ? first + n : tiles - 1;
      x[n] = args.x + int64_t{own} * steps * kWarpLanes + thread.lane();
    }
    // The next steps' weights are on their way while these are multiplied.
    Words4 now[2 * kAhead];
    Words4 next[2 * kAhead];
    const int32_t begin = segments.padded[segment] / kStepDepth;
    Load(w, begin, end, now, thread);
    for (int32_t step = begin; step < end; step += kAhead) {
      Load(w, step + kAhead, end, next, thread);
      CARAVAN_UNROLL
      for (int u = 0; u < kAhead; ++u) {
        if (step + u >= end) break;
        CARAVAN_UNROLL
        for (int n = 0; n < kTokenTiles; ++n) {
          const Words4 b = x[n][int64_t{step + u} * kWarpLanes];
          thread.Mma(sums[n], now[2 * u].word, b.word);
          thread.Mma(sums[n], now[2 * u + 1].word, b.word + 2);
        }
      }
      CARAVAN_UNROLL
      for (int u = 0; u < 2 * kAhead; ++u) now[u] = next[u];
    }
  }

  // Weights of steps [step, step + kAhead), up to `end`.
  template <typename Thread>
  static CARAVAN_DEVICE void Load(const Words4* w, int32_t step, int32_t end,
                                  Words4 (&out)[2 * kAhead], Thread& thread) {
    CARAVAN_UNROLL
    for (int u = 0; u < kAhead; ++u) {
      if (step + u >= end) break;
      const Words4* const tile = w + int64_t{2} * (step + u) * kWarpLanes;
      out[2 * u] = thread.LoadStream(tile);
      out[2 * u + 1] = thread.LoadStream(tile + kWarpLanes);
    }
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_MMA_GEMM_H_
