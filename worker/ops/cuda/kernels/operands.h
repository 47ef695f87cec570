// What kernels are told of matrices, caches and tokens. Plain data; pointers
// are the device's.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_OPERANDS_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_OPERANDS_H_

#include <cstdint>

#include "worker/ops/cuda/kernels/four_bit.h"
#include "worker/ops/cuda/kernels/fp8.h"
#include "worker/ops/cuda/kernels/fragments.h"
#include "worker/ops/cuda/kernels/thread.h"

namespace caravan::worker::cuda {

inline constexpr int kSlots = 16;  // of a block

// A packed matrix: for tensor cores fragments of bf16 or codes of 4 or 8
// bits, or plain rows.
struct Weights {
  const void* data = nullptr;
  DType dtype = DType::kFp32;
  bool fragments = false;
  int32_t rows = 0;
  SegmentTable segments;
  // Where one of these has codes, `data` is not read.
  FourBitWeights four_bit;
  Fp8Weights fp8;

  CARAVAN_DEVICE float Read(int64_t row, int64_t k) const {
    if (four_bit.codes != nullptr) {
      return four_bit.Read(row, segments.Pad(k), segments.depth());
    }
    if (fp8.codes != nullptr) {
      return fp8.Read(row, segments.Pad(k), segments.depth());
    }
    const int64_t i = fragments
                          ? WeightOffset(row, segments.Pad(k), segments.depth())
                          : row * segments.columns() + k;
    return ReadElement(data, dtype, i);
  }
};

// (layer, block, kv head): keys of 16 slots, then values. As fragments of bf16,
// or of fp8, with head_dim rounded up to 16, or [slot][dim].
struct Cache {
  void* data = nullptr;
  DType dtype = DType::kFp32;
  bool fragments = false;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t block_count = 0;

  // Dimensions as stored.
  CARAVAN_HOST_DEVICE int64_t width() const {
    return fragments ? (head_dim + 15) / 16 * 16 : head_dim;
  }
  // Elements of one block's keys (or values) of a head.
  CARAVAN_HOST_DEVICE int64_t tile() const { return kSlots * width(); }
  CARAVAN_HOST_DEVICE int64_t KeyBase(int64_t layer, int64_t block,
                                      int64_t head) const {
    return ((layer * block_count + block) * kv_heads + head) * 2 * tile();
  }
  CARAVAN_HOST_DEVICE int64_t ValueBase(int64_t layer, int64_t block,
                                        int64_t head) const {
    return KeyBase(layer, block, head) + tile();
  }
  // Elements between a base and (slot, dim).
  CARAVAN_HOST_DEVICE int64_t KeyElement(int64_t slot, int64_t dim) const {
    return fragments ? KeyOffset(slot, dim) : slot * head_dim + dim;
  }
  CARAVAN_HOST_DEVICE int64_t ValueElement(int64_t slot, int64_t dim) const {
    return fragments ? ValueOffset(slot, dim) : slot * head_dim + dim;
  }
};

// A token of the step, for attention.
struct TokenPlace {
  int32_t position = 0;
  int32_t blocks = 0;  // where its sequence's block ids begin
  // Where its partial results begin, one for each split; -1: its splits are
  // merged where they are computed.
  int32_t partial = -1;
};

// Results of single splits, (partial, head): output, and maximum and sum.
struct Partials {
  float* outputs = nullptr;  // [partial][head][dim]
  float* stats = nullptr;    // [partial][head][2]
};

enum class EpilogueMode : int32_t {
  kStore,  // out = y + bias
  kAdd,    // out += y + bias
  kSilu,   // out = Silu(gate + bias) * (up + up_bias)
};

// What becomes of a product's rows; biases may be null.
struct Epilogue {
  EpilogueMode mode = EpilogueMode::kStore;
  const float* bias = nullptr;
  const float* up_bias = nullptr;
  float* out = nullptr;  // (tokens, columns)
  int64_t stride = 0;
  int32_t columns = 0;

  CARAVAN_DEVICE void Put(int64_t token, int64_t column, float y) const {
    if (bias != nullptr) y += bias[column];
    float& target = out[token * stride + column];
    target = mode == EpilogueMode::kAdd ? target + y : y;
  }
  CARAVAN_DEVICE void PutSilu(int64_t token, int64_t column, float gate,
                              float up) const {
    if (bias != nullptr) gate += bias[column];
    if (up_bias != nullptr) up += up_bias[column];
    out[token * stride + column] = Silu(gate) * up;
  }
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_OPERANDS_H_
