// y[t, r] = MatMul(x, W) with wgmma (sm_90a): bf16 times bf16, fp32
// accumulators, for large steps. Weights are operand A, from registers, in the
// fragments that mma.sync reads, so both instructions have the same weights in
// memory; tokens are operand B, from shared memory (swizzled.h). An
// accumulator takes its segment's k in ascending steps of 16, segments are
// added as Tree8: the order of MmaGemmKernel. Whether the bits are its bits is
// for the hardware to say (wgmma_check.h).
//
// One warp copies steps of 32 k of all tokens into a ring, ahead of the two
// groups of four warps that multiply. Floor: 64 * 128 * 16 products take a
// multiprocessor 64 cycles; a block reads 6 KiB (kTiles of 2) or 4 KiB for as
// many, from L2.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_WGMMA_GEMM_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_WGMMA_GEMM_H_

#include "worker/ops/cuda/kernels/mma_gemm.h"
#include "worker/ops/cuda/kernels/swizzled.h"

namespace caravan::worker::cuda {

inline constexpr int kGroupWarps = 4;  // that multiply together
inline constexpr int kGroupRows = kGroupWarps * kMmaRows;

// A group computes kTiles times 64 packed rows by kTokens tokens. Grid: (row
// tiles / (2 * kTiles * 4), tokens / kTokens), rounded up. With several
// segments kTiles is 1.
template <int kTokens, int kTiles>
struct WgmmaGemmKernel {
  static constexpr int kGroups = 2;
  static constexpr int kWarps = kGroups * kGroupWarps;  // that multiply
  // The warp that copies has three idle beside it: registers are moved between
  // groups of four warps only.
  static constexpr int kThreads = (kWarps + kGroupWarps) * kWarpLanes;
  static constexpr int kMinBlocks = 1;
  static constexpr int kRowTiles = kGroups * kTiles * kGroupWarps;  // a block's
  static constexpr int kStages = kTiles == 1 ? 4 : 8;
  static constexpr int kStageBytes = kTokens / kAtomTokens * kAtomBytes;
  static constexpr int kSums = kTokens / 2;  // of a lane, for 64 rows
  // Partial sums of the tree that wait for their other half.
  static constexpr int kLevels = kTiles == 1 ? 3 : 0;
  static constexpr int64_t kStackBytes =
      int64_t{4} * kLevels * kSums * kWarps * kWarpLanes;
  static constexpr int64_t kSharedBytes =
      int64_t{kStages} * kStageBytes + kStackBytes + 2 * kStages * 8;
  struct Args {
    Weights w;      // fragments
    const void* x;  // swizzled
    int32_t tokens;
    int32_t row_tiles;
    Epilogue epilogue;
  };

  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    if constexpr (Thread::kHasWgmma) {
      const Ring ring(thread.shared());
      if (thread.thread() < kStages) {
        thread.InitBarrier(ring.full + thread.thread(), 1);
        thread.InitBarrier(ring.empty + thread.thread(), kWarps);
      }
      thread.PublishBarriers();
      if (thread.warp() < kWarps) {
        if constexpr (kTiles > 1) thread.TakeRegisters();
        Consume(args, ring, thread);
      } else {
        if constexpr (kTiles > 1) thread.GiveRegisters();
        if (thread.thread() == kWarps * kWarpLanes) {
          Produce(args, ring, thread);
        }
      }
    }
  }

 private:
  // The block's shared memory.
  struct Ring {
    CARAVAN_DEVICE explicit Ring(void* shared)
        : stages(static_cast<unsigned char*>(shared)),
          stack(reinterpret_cast<float*>(stages + kStages * kStageBytes)),
          full(reinterpret_cast<uint64_t*>(stages + kStages * kStageBytes +
                                           kStackBytes)),
          empty(full + kStages) {}
    unsigned char* stages;
    float* stack;
    uint64_t* full;   // a stage's bytes have come
    uint64_t* empty;  // every warp has multiplied them
  };

  template <typename Thread>
  static CARAVAN_DEVICE void Produce(const Args& args, const Ring& ring,
                                     Thread& thread) {
    const int32_t steps =
        static_cast<int32_t>(args.w.segments.depth() / kStepDepth);
    const int32_t groups = (args.tokens + kAtomTokens - 1) / kAtomTokens;
    const int32_t first = thread.block_y() * (kTokens / kAtomTokens);
    const int32_t own = groups - first < kTokens / kAtomTokens
                            ? groups - first
                            : kTokens / kAtomTokens;
    const unsigned char* const source =
        static_cast<const unsigned char*>(args.x) + int64_t{first} * kAtomBytes;
    for (int32_t step = 0; step < steps; ++step) {
      const int stage = step % kStages;
      const int turn = step / kStages;
      if (turn > 0) thread.WaitBarrier(ring.empty + stage, (turn - 1) & 1);
      thread.ExpectBytes(ring.full + stage, own * kAtomBytes);
      thread.CopyBulk(ring.stages + stage * kStageBytes,
                      source + int64_t{step} * groups * kAtomBytes,
                      own * kAtomBytes, ring.full + stage);
    }
  }

  // First row tile of this warp in the m64 tile `j` of its group.
  template <typename Thread>
  static CARAVAN_DEVICE int32_t RowTile(int j, Thread& thread) {
    const int group = thread.block_x() * kGroups + thread.warp() / kGroupWarps;
    return (group * kTiles + j) * kGroupWarps + thread.warp() % kGroupWarps;
  }

  template <typename Thread>
  static CARAVAN_DEVICE void Consume(const Args& args, const Ring& ring,
                                     Thread& thread) {
    const SegmentTable& segments = args.w.segments;
    const int32_t steps = static_cast<int32_t>(segments.depth() / kStepDepth);
    const Words4* w[kTiles];
    CARAVAN_UNROLL
    for (int j = 0; j < kTiles; ++j) {
      // Beyond the last tile of rows: the last again, and not stored.
      const int32_t tile = RowTile(j, thread);
      const int32_t own = tile < args.row_tiles ? tile : args.row_tiles - 1;
      w[j] = static_cast<const Words4*>(args.w.data) +
             int64_t{own} * steps * 2 * kWarpLanes + thread.lane();
    }
    float sums[kTiles][kSums] = {};
    int segment = 0;
    Words4 now[kTiles][4];
    Words4 next[kTiles][4];
    Load(w, 0, steps, now, thread);
    for (int32_t pair = 0; pair < steps; pair += 2) {
      Load(w, pair + 2, steps, next, thread);
      CARAVAN_UNROLL
      for (int u = 0; u < 2; ++u) {
        const int32_t step = pair + u;
        if (step >= steps) break;
        // Empty segments end before they begin.
        if constexpr (kLevels > 0) {
          while (segments.padded[segment + 1] <= step * kStepDepth) {
            EndSegment(ring, segment++, sums[0], thread);
          }
        }
        MultiplyStep(ring, step, now, u, sums, thread);
      }
      CARAVAN_UNROLL
      for (int j = 0; j < kTiles; ++j) {
        CARAVAN_UNROLL
        for (int i = 0; i < 4; ++i) now[j][i] = next[j][i];
      }
    }
    if constexpr (kLevels > 0) {
      while (segment < segments.count - 1) {
        EndSegment(ring, segment++, sums[0], thread);
      }
      if (segments.count > 1) AddWaiting(ring, segment, sums[0], thread);
    }
    Store(args, sums, thread);
  }

  // Weights of the pair of steps from `step`, up to `end`.
  template <typename Thread>
  static CARAVAN_DEVICE void Load(const Words4* const (&w)[kTiles],
                                  int32_t step, int32_t end,
                                  Words4 (&out)[kTiles][4], Thread& thread) {
    CARAVAN_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (step + i / 2 >= end) break;
      CARAVAN_UNROLL
      for (int j = 0; j < kTiles; ++j) {
        out[j][i] =
            thread.LoadStream(w[j] + (int64_t{step} * 2 + i) * kWarpLanes);
      }
    }
  }

  template <typename Thread>
  static CARAVAN_DEVICE void MultiplyStep(const Ring& ring, int32_t step,
                                          const Words4 (&a)[kTiles][4], int u,
                                          float (&sums)[kTiles][kSums],
                                          Thread& thread) {
    const int stage = step % kStages;
    const unsigned char* const b = ring.stages + stage * kStageBytes;
    thread.WaitBarrier(ring.full + stage, step / kStages & 1);
    thread.BeginWgmma();
    CARAVAN_UNROLL
    for (int half = 0; half < 2; ++half) {
      const uint64_t descriptor =
          SwizzledDescriptor(thread.SharedAddress(b + half * 2 * kMmaDepth));
      CARAVAN_UNROLL
      for (int j = 0; j < kTiles; ++j) {
        thread.Wgmma(sums[j], a[j][2 * u + half].word, descriptor);
      }
    }
    thread.EndWgmma();
    if (thread.lane() == 0) thread.ArriveBarrier(ring.empty + stage);
  }

  // Tree8 as the segments come: sum s meets the waiting sum of every level that
  // is full, and waits for its own other half.
  template <typename Thread>
  static CARAVAN_DEVICE int AddWaiting(const Ring& ring, int segment,
                                       float (&sums)[kSums], Thread& thread) {
    int level = 0;
    for (; (segment >> level & 1) != 0; ++level) {
      const float* const waiting = Level(ring, level, thread);
      CARAVAN_UNROLL
      for (int i = 0; i < kSums; ++i) {
        sums[i] = waiting[i * kWarps * kWarpLanes] + sums[i];
      }
    }
    return level;
  }
  template <typename Thread>
  static CARAVAN_DEVICE void EndSegment(const Ring& ring, int segment,
                                        float (&sums)[kSums], Thread& thread) {
    const int level = AddWaiting(ring, segment, sums, thread);
    float* const waiting = Level(ring, level, thread);
    CARAVAN_UNROLL
    for (int i = 0; i < kSums; ++i) {
      waiting[i * kWarps * kWarpLanes] = sums[i];
      sums[i] = 0.0f;
    }
  }
  template <typename Thread>
  static CARAVAN_DEVICE float* Level(const Ring& ring, int level,
                                     Thread& thread) {
    return ring.stack + level * kSums * kWarps * kWarpLanes + thread.thread();
  }

  template <typename Thread>
  static CARAVAN_DEVICE void Store(const Args& args,
                                   const float (&sums)[kTiles][kSums],
                                   Thread& thread) {
    const int32_t first = thread.block_y() * (kTokens / kMmaTokens);
    CARAVAN_UNROLL
    for (int j = 0; j < kTiles; ++j) {
      const int32_t tile = RowTile(j, thread);
      if (tile >= args.row_tiles) continue;
      CARAVAN_UNROLL
      for (int n = 0; n < kTokens / kMmaTokens; ++n) {
        StoreTile(args.epilogue, tile, first + n, args.tokens, sums[j] + 4 * n,
                  thread.lane());
      }
    }
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_WGMMA_GEMM_H_
