// What the card can do at most, measured: reading memory, and the tensor cores'
// instruction out of registers. Figures of other kernels are shares of these.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_CEILINGS_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_CEILINGS_H_

#include "worker/ops/cuda/kernels/operands.h"

namespace caravan::worker::cuda {

// Reads `count` words of 16 bytes once; every thread keeps kAhead of them under
// way. sums[block] depends on all. Grid: (blocks), of kThreads.
struct ReadCeilingKernel {
  static constexpr int kThreads = 512;
  static constexpr int kAhead = 8;
  struct Args {
    const Words4* data;
    int64_t count;
    int32_t blocks;
    uint32_t* sums;  // (blocks * kThreads)
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t place =
        int64_t{thread.block_x()} * kThreads + thread.thread();
    const int64_t step = int64_t{args.blocks} * kThreads;
    uint32_t sum = 0;
    for (int64_t i = place; i < args.count; i += kAhead * step) {
      Words4 words[kAhead] = {};
      CARAVAN_UNROLL
      for (int a = 0; a < kAhead; ++a) {
        if (i + a * step < args.count) {
          words[a] = thread.LoadStream(args.data + i + a * step);
        }
      }
      CARAVAN_UNROLL
      for (int a = 0; a < kAhead; ++a) {
        sum += words[a].word[0] ^ words[a].word[1] ^ words[a].word[2] ^
               words[a].word[3];
      }
    }
    args.sums[place] = sum;
  }
};

// `rounds` times kChains independent products of 16 x 8 x 16 for each warp.
// Grid: (blocks).
struct MmaCeilingKernel {
  static constexpr int kThreads = 256;
  static constexpr int kChains = 8;
  struct Args {
    int32_t rounds;
    float* sums;  // (blocks * kThreads)
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    float sums[kChains][4] = {};
    const uint32_t seed =
        0x3f803f80u + static_cast<uint32_t>(thread.thread() % 7);
    const uint32_t a[4] = {seed, seed + 1, seed + 2, seed + 3};
    const uint32_t b[2] = {seed + 4, seed + 5};
    for (int32_t r = 0; r < args.rounds; ++r) {
      CARAVAN_UNROLL
      for (int c = 0; c < kChains; ++c) thread.Mma(sums[c], a, b);
    }
    float total = 0;
    CARAVAN_UNROLL
    for (int c = 0; c < kChains; ++c) total += sums[c][0] + sums[c][3];
    args.sums[int64_t{thread.block_x()} * kThreads + thread.thread()] = total;
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_CEILINGS_H_
