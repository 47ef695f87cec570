// Weights of e4m3 into fragment order at load, and in front of the tensor cores
// (fp8.h). A row's scale is taken out of its sums and multiplied at the end, so
// that what tensor cores add are codes:
//
//   bf16 activations   y = sum * scale of row
//   e4m3 activations   y = (sum * scale of token) * scale of row
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_FP8_GEMM_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_FP8_GEMM_H_

#include "worker/ops/cuda/kernels/mma_gemm.h"

namespace caravan::worker::cuda {

// Rows of blocks of 32, as worker/tensor/fp8.h has them, to codes and scales:
// where rows go is as in PackWeightsKernel. A thread has one word. Padding
// stays as it is. Grid: (rows).
struct PackFp8Kernel {
  static constexpr int kThreads = 256;
  struct Args {
    const unsigned char* source;
    int64_t row_bytes;
    uint32_t* codes;
    float* scales;
    SegmentTable segments;
    int64_t first_row;
    int64_t part_begin;
    int32_t part;
    bool interleaved;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t i = thread.block_x();
    const int64_t row = args.first_row + i;
    const int64_t target = args.interleaved ? InterleavedRow(row, args.part)
                                            : args.part_begin + row;
    const unsigned char* const source = args.source + i * args.row_bytes;
    const int64_t depth = args.segments.depth();
    for (int64_t w = thread.thread(); w < depth / kCodesOfWord; w += kThreads) {
      const int64_t first = w / 4 * 16;  // of 16 columns
      const int quad = static_cast<int>(w % 4);
      args.codes[Fp8WeightOffset(target, first + 2 * quad, depth) / 4] =
          Codes(args, source, first, quad);
    }
    if (thread.thread() == 0) {
      // A row begins with its scale.
      args.scales[target] = *reinterpret_cast<const float*>(source);
    }
  }

 private:
  static CARAVAN_DEVICE uint32_t Codes(const Args& args,
                                       const unsigned char* source,
                                       int64_t first, int quad) {
    uint32_t word = 0;
    for (int byte = 0; byte < kCodesOfWord; ++byte) {
      const int64_t k = args.segments.Unpad(first + Fp8Element(quad, byte));
      if (k < 0) continue;
      const int64_t place = k / kFp8Block * kFp8BlockBytes + 4 + k % kFp8Block;
      word |= uint32_t{source[place]} << 8 * byte;
    }
    return word;
  }
};

// Codes of a lane for a step: what both sources load.
struct Fp8Codes {
  static constexpr int kTable = 0;
  static constexpr int kStepsAtOnce = 2;  // of half the bytes of bf16
  static constexpr bool kScaled = true;
  using Step = Words4;
  using Place = const Words4*;

  static CARAVAN_DEVICE Place At(const Weights& w, int64_t tile, int64_t steps,
                                 int lane) {
    return w.fp8.codes + tile * steps * kWarpLanes + lane;
  }
  template <typename Thread>
  static CARAVAN_DEVICE void Load(const Weights&, const Place& place,
                                  int64_t step, Step& out, Thread& thread) {
    out = thread.LoadStream(place + step * kWarpLanes);
  }
};

// Operand A of MmaGemmKernel from codes, for tokens of bf16.
struct Fp8Source : Fp8Codes {
  static constexpr bool kFp8Tokens = false;

  static CARAVAN_DEVICE void Fragment(const Weights&, const Step& step,
                                      int half, const float*,
                                      uint32_t (&a)[4]) {
    CARAVAN_UNROLL
    for (int r = 0; r < 2; ++r) {
      uint32_t wide[2];
      WidenFp8(step.word[half * 2 + r], wide);
      a[r] = wide[0];
      a[2 + r] = wide[1];
    }
  }
};

// The same for tokens of e4m3 (sm_89 and later): codes meet codes.
struct Fp8TokensSource : Fp8Codes {
  static constexpr bool kFp8Tokens = true;
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_FP8_GEMM_H_
