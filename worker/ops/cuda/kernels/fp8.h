// 8-bit floats (e4m3) for tensor cores: where codes of weights, activations and
// caches lie, and how they become bf16 in registers. Plain functions, tested on
// the host.
//
//   weights      [row / 16][k / 32][lane][4 words]
//                A of rows r and r + 8, of 16 k, then of the next 16
//   activations  [token / 8][k / 32][lane][2 words]
//                B of 8 tokens, of 16 k, then of the next 16
//   caches       in the order of bf16's elements (fragments.h)
//
// The four codes of a word, the lowest byte first, are elements 2 c + {0, 1, 8,
// 9}, c = l % 4, of 16: widened they are two words of mma.m16n8k16
// (fragments.h), and as they are one of mma.m16n8k32, which meets weights and
// activations in the same order of its 32, another than its own.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_FP8_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_FP8_H_

#include <cstdint>

#include "worker/ops/cuda/kernels/fragments.h"
#include "worker/ops/cuda/kernels/thread.h"
#include "worker/tensor/fp8.h"

namespace caravan::worker::cuda {

inline constexpr int kCodesOfWord = 4;

// Where element e of 16 lies: in which quarter of a row of lanes, which byte.
CARAVAN_HOST_DEVICE constexpr int64_t QuadOf(int64_t e) { return e % 8 / 2; }
CARAVAN_HOST_DEVICE constexpr int64_t ByteOf(int64_t e) {
  return e % 16 / 8 * 2 + e % 2;
}
// The element of byte `byte` in quarter `quad`.
CARAVAN_HOST_DEVICE constexpr int Fp8Element(int quad, int byte) {
  return 2 * quad + byte % 2 + byte / 2 * 8;
}

// Bytes before the code of (row, k) of weights with `depth` padded columns.
CARAVAN_HOST_DEVICE constexpr int64_t Fp8WeightOffset(int64_t row, int64_t k,
                                                      int64_t depth) {
  const int64_t tile = row / 16 * (depth / 32) + k / 32;
  const int64_t lane = row % 8 * 4 + QuadOf(k);
  const int64_t word = k % 32 / 16 * 2 + row % 16 / 8;
  return ((tile * kWarpLanes + lane) * 4 + word) * kCodesOfWord + ByteOf(k);
}

// Bytes before the code of (token, k) of activations.
CARAVAN_HOST_DEVICE constexpr int64_t Fp8ActivationOffset(int64_t token,
                                                          int64_t k,
                                                          int64_t depth) {
  const int64_t tile = token / 8 * (depth / 32) + k / 32;
  const int64_t lane = token % 8 * 4 + QuadOf(k);
  const int64_t word = k % 32 / 16;
  return ((tile * kWarpLanes + lane) * 2 + word) * kCodesOfWord + ByteOf(k);
}

// Bytes of codes, of whole tiles; scales, a float for each packed row, follow.
CARAVAN_HOST_DEVICE constexpr int64_t Fp8CodeBytes(int64_t row_tiles,
                                                   int64_t depth) {
  return row_tiles * kMmaRows * depth;
}
CARAVAN_HOST_DEVICE constexpr int64_t Fp8ScaleBytes(int64_t row_tiles) {
  return row_tiles * kMmaRows * 4;
}

// Codes 0, 1 and 2, 3 of a word as two words of bf16: exact. No code is NaN. A
// code's fields are those of a bf16 that is 2^-120 of it.
CARAVAN_DEVICE void WidenFp8(uint32_t codes, uint32_t (&out)[2]) {
#ifdef __CUDA_ARCH__
  CARAVAN_UNROLL
  for (int i = 0; i < 2; ++i) {
    const uint32_t spread = __byte_perm(codes, 0, i == 0 ? 0x1404 : 0x3424);
    const uint32_t bits = (spread & 0x80008000u) | (spread >> 4 & 0x07f007f0u);
    asm("fma.rn.bf16x2 %0, %1, %2, %3;"
        : "=r"(out[i])
        : "r"(bits), "r"(0x7b807b80u), "r"(0x80008000u));
  }
#else
  float value[4];
  for (int i = 0; i < 4; ++i) {
    value[i] = ToFloat(Fp8{static_cast<uint8_t>(codes >> 8 * i)});
  }
  out[0] = PackBf16(value[0], value[1]);
  out[1] = PackBf16(value[2], value[3]);
#endif
}

// The same where codes may be NaN, which then is among the four of the word.
CARAVAN_DEVICE void WidenAnyFp8(uint32_t codes, uint32_t (&out)[2]) {
  WidenFp8(codes, out);
  const uint32_t above = (codes & 0x7f7f7f7fu) + 0x01010101u;
  if ((above & 0x80808080u) != 0) out[0] = 0x7fc07fc0u;
}

// A matrix of codes on the device: w = code * scale of its packed row.
struct Fp8Weights {
  const Words4* codes = nullptr;
  const float* scales = nullptr;

  // The fp32 value at padded column `p`, as in worker/tensor/fp8.h.
  CARAVAN_DEVICE float Read(int64_t row, int64_t p, int64_t depth) const {
    const auto* const bytes = reinterpret_cast<const uint8_t*>(codes);
    return ToFloat(Fp8{bytes[Fp8WeightOffset(row, p, depth)]}) * scales[row];
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_FP8_H_
