// RmsNorm (ops.h): Lanes16 chains of squares, in the order of every backend.
// Floor: reads D floats and writes D floats or bf16 a row; the chain of D / 16
// dependent fma (about 4 clocks each) takes longer than that for few rows, so
// the row is staged in shared memory and the chain waits for nothing else.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_NORM_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_NORM_H_

#include "worker/ops/cuda/kernels/fp8_activations.h"
#include "worker/ops/cuda/kernels/operands.h"
#include "worker/ops/cuda/kernels/swizzled.h"

namespace caravan::worker::cuda {

// Row i of the result is the norm of row tokens[i] (or i) of x, either as
// floats (rows, D), as rows of bf16, or as fragments of bf16 or codes, padded
// with zeros to a multiple of 8 rows. Grid: (rows, rounded up to 8 for
// fragments).
struct NormKernel {
  static constexpr int kThreads = 256;
  static constexpr int kChunk = 4096;  // floats staged at a time
  static constexpr int kLanes = 16;
  static constexpr int kSharedBytes = (kChunk + kLanes + 1) * 4;
  struct Args {
    const float* x;
    int64_t stride;
    const int32_t* tokens;  // or null
    const float* norm;
    float epsilon;
    int32_t rows;
    SegmentTable segments;  // one segment of D columns
    float* floats;          // one of these four is not null
    uint16_t* halves;
    uint32_t* fragments;
    Fp8Activations codes;
    ActivationOrder order;
  };

  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t i = thread.block_x();
    const bool real = i < args.rows;
    const bool padded =
        args.fragments != nullptr || args.codes.codes != nullptr;
    if (!real && !padded) return;
    const int64_t source = !real ? 0 : args.tokens ? args.tokens[i] : i;
    const float* const x = args.x + source * args.stride;
    const float scale = Scale(args, x, thread);
    if (args.halves != nullptr) {
      PutHalves(args, x, scale, i, thread);
    } else if (args.floats != nullptr) {
      PutFloats(args, x, scale, i, thread);
    } else if (args.codes.codes != nullptr) {
      RoundToFp8<kThreads>(
          args.codes, args.segments, i, real,
          [&args, x, scale](int64_t k) {
            return (x[k] * scale) * args.norm[k];
          },
          static_cast<uint32_t*>(thread.shared()), thread);
    } else {
      PutFragments(args, x, scale, i, real, thread);
    }
  }

 private:
  // 1 / sqrt(mean of squares + epsilon), the same in every thread.
  template <typename Thread>
  static CARAVAN_DEVICE float Scale(const Args& args, const float* x,
                                    Thread& thread) {
    float* const staged = reinterpret_cast<float*>(thread.shared());
    float* const lanes = staged + kChunk;
    const int64_t dim = args.segments.columns();
    const int lane = thread.thread();
    float chain = 0;
    for (int64_t begin = 0; begin < dim; begin += kChunk) {
      const int64_t count = dim - begin < kChunk ? dim - begin : kChunk;
      for (int64_t k = lane; k < count; k += kThreads) staged[k] = x[begin + k];
      thread.Sync();
      if (lane < kLanes) {
        for (int64_t k = lane; k < count; k += kLanes) {
          chain = std::fma(staged[k], staged[k], chain);
        }
      }
      thread.Sync();
    }
    if (lane < kLanes) lanes[lane] = chain;
    thread.Sync();
    if (lane == 0) {
      const float mean = FoldLanes16(lanes) / static_cast<float>(dim);
      lanes[kLanes] = 1.0f / std::sqrt(mean + args.epsilon);
    }
    thread.Sync();
    return lanes[kLanes];
  }

  template <typename Thread>
  static CARAVAN_DEVICE void PutFloats(const Args& args, const float* x,
                                       float scale, int64_t i, Thread& thread) {
    const int64_t dim = args.segments.columns();
    for (int64_t k = thread.thread(); k < dim; k += kThreads) {
      args.floats[i * dim + k] = (x[k] * scale) * args.norm[k];
    }
  }

  template <typename Thread>
  static CARAVAN_DEVICE void PutHalves(const Args& args, const float* x,
                                       float scale, int64_t i, Thread& thread) {
    const int64_t dim = args.segments.columns();
    for (int64_t k = thread.thread(); k < dim; k += kThreads) {
      args.halves[i * dim + k] = ToBf16((x[k] * scale) * args.norm[k]).bits;
    }
  }

  template <typename Thread>
  static CARAVAN_DEVICE void PutFragments(const Args& args, const float* x,
                                          float scale, int64_t i, bool real,
                                          Thread& thread) {
    const int64_t dim = args.segments.columns();
    const int64_t depth = args.segments.depth();
    for (int64_t k = 2 * thread.thread(); k < depth; k += 2 * kThreads) {
      const float low = real && k < dim ? (x[k] * scale) * args.norm[k] : 0.0f;
      const float high =
          real && k + 1 < dim ? (x[k + 1] * scale) * args.norm[k + 1] : 0.0f;
      args.fragments[OrderedOffset(args.order, i, k, args.rows, depth) / 2] =
          PackBf16(low, high);
    }
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_NORM_H_
