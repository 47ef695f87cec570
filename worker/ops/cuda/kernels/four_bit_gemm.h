// Weights of 4 bits into fragment order at load, and out of it in front of the
// tensor cores (four_bit.h).
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_FOUR_BIT_GEMM_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_FOUR_BIT_GEMM_H_

#include "worker/ops/cuda/kernels/mma_gemm.h"

namespace caravan::worker::cuda {

// Rows of blocks, as in a checkpoint, to codes and scales: where rows go is as
// in PackWeightsKernel. Segments begin at multiples of 32. A thread has one
// word of codes. Grid: (rows).
struct PackFourBitKernel {
  static constexpr int kThreads = 256;
  struct Args {
    const unsigned char* source;
    int64_t row_bytes;
    uint32_t* codes;
    unsigned char* scales;
    FourBitFormat format;
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
    const int64_t steps = args.segments.depth() / kStepDepth;
    const int64_t words = args.segments.columns() / 8;
    for (int64_t w = thread.thread(); w < words; w += kThreads) {
      const int64_t column = w / 4 * kStepDepth;
      const int quad = static_cast<int>(w % 4);
      const int64_t step = args.segments.Pad(column) / kStepDepth;
      const unsigned char* const block =
          source + column / args.format.block_columns * args.format.block_bytes;
      const int first = static_cast<int>(column % args.format.block_columns);
      args.codes[CodeWord(target, step, quad, steps)] =
          Codes(args.format, block, first, quad);
      if (quad == 0) PutScale(args, block, ScalePlace(target, step, steps));
    }
  }

 private:
  static CARAVAN_DEVICE uint32_t Codes(const FourBitFormat& format,
                                       const unsigned char* block, int first,
                                       int quad) {
    uint32_t word = 0;
    for (int n = 0; n < 8; ++n) {
      const int e = first + CodeColumn(quad, n);
      const int byte = format.pairs ? e / 2 : e % 16;
      const bool high = format.pairs ? e % 2 == 0 : e >= 16;
      const uint32_t code = block[format.code_begin + byte];
      word |= (high ? code >> 4 : code & 15) << 4 * n;
    }
    return word;
  }
  static CARAVAN_DEVICE void PutScale(const Args& args,
                                      const unsigned char* block,
                                      int64_t place) {
    const int bytes = args.format.scale_bytes();
    for (int i = 0; i < bytes; ++i) args.scales[place * bytes + i] = block[i];
  }
};

// Operand A of MmaGemmKernel from codes: 8 bytes of a lane and the scales of
// its two rows become 8 words of bf16 a step.
struct FourBitSource {
  static constexpr int kTable = 16;
  static constexpr int kStepsAtOnce = 1;
  static constexpr bool kScaled = false;
  static constexpr bool kFp8Tokens = false;
  struct Step {
    uint32_t codes[2];
    uint32_t scales[2];
  };
  // The matrix at one lane of a row tile.
  struct Place {
    const uint32_t* codes;
    const unsigned char* scales;
  };

  static CARAVAN_DEVICE Place At(const Weights& w, int64_t tile, int64_t steps,
                                 int lane) {
    const int64_t words = (tile * steps * kWarpLanes + lane) * 2;
    const int64_t scales = (tile * steps * 8 + lane / 4) * 2;
    return {w.four_bit.codes + words,
            w.four_bit.scales + scales * w.four_bit.format.scale_bytes()};
  }

  template <typename Thread>
  static CARAVAN_DEVICE void Load(const Weights& w, const Place& place,
                                  int64_t step, Step& out, Thread&) {
    const uint32_t* const codes = place.codes + step * kWarpLanes * 2;
    out.codes[0] = codes[0];
    out.codes[1] = codes[1];
    if (w.four_bit.format.scale == FourBitScale::kHalf) {
      // Both rows' in one word.
      out.scales[0] =
          *reinterpret_cast<const uint32_t*>(place.scales + step * 32);
      out.scales[1] = out.scales[0] >> 16;
    } else {
      const auto* const scales =
          reinterpret_cast<const uint32_t*>(place.scales + step * 64);
      out.scales[0] = scales[0];
      out.scales[1] = scales[1];
    }
  }

  // Operand A of half `half` of the step; `table` is in shared memory.
  static CARAVAN_DEVICE void Fragment(const Weights& w, const Step& step,
                                      int half, const float* table,
                                      uint32_t (&a)[4]) {
    const FourBitScale kind = w.four_bit.format.scale;
    CARAVAN_UNROLL
    for (int r = 0; r < 2; ++r) {
      const ScaleOfRow scale = ReadScale(kind, step.scales[r]);
      CARAVAN_UNROLL
      for (int i = 0; i < 2; ++i) {
        const uint32_t codes = step.codes[r] >> (half * 16 + i * 8);
        a[2 * i + r] =
            PackBf16(FourBitValue(kind, table[codes & 15], scale),
                     FourBitValue(kind, table[codes >> 4 & 15], scale));
      }
    }
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_FOUR_BIT_GEMM_H_
