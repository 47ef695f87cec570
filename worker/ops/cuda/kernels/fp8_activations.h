// Rows of activations as codes of e4m3 with a scale of their own, greatest
// magnitude / 448: it depends on the row alone. Floor: reads a row twice (the
// second time from cache), writes a byte an element.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_FP8_ACTIVATIONS_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_FP8_ACTIVATIONS_H_

#include "worker/ops/cuda/kernels/fp8.h"

namespace caravan::worker::cuda {

// Where a step's activations go: codes of tokens rounded up to 8, padded
// columns zero, and a scale each.
struct Fp8Activations {
  uint32_t* codes = nullptr;
  float* scales = nullptr;
};

// The greatest of all threads' values, in each of them. NaN is greater than all
// (its bits are, and those of numbers that are not negative keep their order).
// `shared` has a word for each warp.
template <int kThreads, typename Thread>
CARAVAN_DEVICE float BlockMax(float value, uint32_t* shared, Thread& thread) {
  uint32_t most = std::bit_cast<uint32_t>(value) & 0x7fffffffu;
  CARAVAN_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) {
    const uint32_t other = thread.ShuffleXor(most, mask);
    most = most > other ? most : other;
  }
  thread.Sync();  // what was read from `shared` before was read
  if (thread.lane() == 0) shared[thread.warp()] = most;
  thread.Sync();
  most = 0;
  for (int w = 0; w < kThreads / kWarpLanes; ++w) {
    most = most > shared[w] ? most : shared[w];
  }
  return std::bit_cast<float>(most);
}

// Rounds row `token`, whose column k is value(k). Rows that are not real are
// zeros. The whole block calls.
template <int kThreads, typename Value, typename Thread>
CARAVAN_DEVICE void RoundToFp8(const Fp8Activations& target,
                               const SegmentTable& segments, int64_t token,
                               bool real, const Value& value, uint32_t* shared,
                               Thread& thread) {
  uint32_t most = 0;
  const int64_t columns = real ? segments.columns() : 0;
  for (int64_t k = thread.thread(); k < columns; k += kThreads) {
    const uint32_t bits = std::bit_cast<uint32_t>(value(k)) & 0x7fffffffu;
    most = most > bits ? most : bits;
  }
  const float scale =
      Fp8Scale(BlockMax<kThreads>(std::bit_cast<float>(most), shared, thread));
  const float inverse = 1.0f / scale;
  const int64_t depth = segments.depth();
  for (int64_t w = thread.thread(); w < depth / kCodesOfWord; w += kThreads) {
    const int64_t first = w / 4 * 16;
    const int quad = static_cast<int>(w % 4);
    uint32_t word = 0;
    for (int byte = 0; byte < kCodesOfWord; ++byte) {
      const int64_t k = segments.Unpad(first + Fp8Element(quad, byte));
      const float x = real && k >= 0 ? value(k) * inverse : 0.0f;
      word |= uint32_t{ToFp8(x).bits} << 8 * byte;
    }
    target.codes[Fp8ActivationOffset(token, first + 2 * quad, depth) / 4] =
        word;
  }
  if (thread.thread() == 0) target.scales[token] = scale;
}

// Activations (T, columns) to codes. Grid: (tokens rounded up to 8).
struct PackFp8ActivationsKernel {
  static constexpr int kThreads = 256;
  static constexpr int kSharedBytes = kThreads / kWarpLanes * 4;
  struct Args {
    const float* x;
    int64_t stride;
    int32_t tokens;
    SegmentTable segments;
    Fp8Activations target;
  };
  template <typename Thread>
  static CARAVAN_DEVICE void Run(const Args& args, Thread& thread) {
    const int64_t t = thread.block_x();
    const float* const row = args.x + t * args.stride;
    RoundToFp8<kThreads>(
        args.target, args.segments, t, t < args.tokens,
        [row](int64_t k) { return row[k]; },
        static_cast<uint32_t*>(thread.shared()), thread);
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_FP8_ACTIVATIONS_H_
