// Where activations lie for wgmma, which reads its operand B from shared
// memory through a descriptor. Plain functions, tested against the rules of
// the PTX ISA (section 9.7.15.5): K-major, swizzled over 64 bytes.
//
//   activations  [k / 32][token / 8][512 bytes]
//
// An atom of 512 bytes is 8 tokens by 32 k, a row of 64 bytes per token. Its
// four chunks of 16 bytes change places: chunk c of row r lies at c ^ (r / 2),
// so that the same chunk of all 8 rows lies in 32 different banks. In memory
// atoms lie as in shared memory: one copy of consecutive bytes brings the
// tokens of a step, and no tensor map is needed. Operand A is the weights'
// fragments (fragments.h): each warp of a group of four has 16 of its 64 rows
// in the registers of mma.sync's A.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_SWIZZLED_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_SWIZZLED_H_

#include <cstdint>

#include "worker/ops/cuda/kernels/fragments.h"

namespace caravan::worker::cuda {

inline constexpr int kAtomTokens = 8;
inline constexpr int kAtomDepth = 32;
inline constexpr int kAtomBytes = kAtomTokens * kAtomDepth * 2;
static_assert(kAtomDepth == kStepDepth && kAtomTokens == kMmaTokens);

// Half-words before element (token, k) of activations of `groups` times 8
// tokens.
CARAVAN_HOST_DEVICE constexpr int64_t SwizzledOffset(int64_t token, int64_t k,
                                                     int64_t groups) {
  const int64_t atom = k / kAtomDepth * groups + token / kAtomTokens;
  const int64_t row = token % kAtomTokens;
  const int64_t chunk = k % kAtomDepth / 8 ^ row / 2;
  return atom * (kAtomBytes / 2) + row * kAtomDepth + chunk * 8 + k % 8;
}

// Descriptor of 16 k of operand B that begin at byte `address` of shared
// memory: of an atom (a multiple of 512), or 32 bytes later for its second 16.
// Bits: 0 address / 16, 16 leading offset (of no meaning here), 32 bytes from
// one atom of tokens to the next / 16, 62 swizzle (2: 64 bytes).
CARAVAN_HOST_DEVICE constexpr uint64_t SwizzledDescriptor(uint32_t address) {
  return uint64_t{(address & 0x3ffff) >> 4} | (uint64_t{1} << 16) |
         (uint64_t{kAtomBytes >> 4} << 32) | (uint64_t{2} << 62);
}

// In which order a product's activations lie.
enum class ActivationOrder : int32_t {
  kRegisters,  // ActivationOffset
  kSwizzled,   // SwizzledOffset
};

// Half-words before element (token, k); `tokens` in all, `depth` padded k.
CARAVAN_HOST_DEVICE constexpr int64_t OrderedOffset(ActivationOrder order,
                                                    int64_t token, int64_t k,
                                                    int64_t tokens,
                                                    int64_t depth) {
  if (order == ActivationOrder::kRegisters) {
    return ActivationOffset(token, k, depth);
  }
  return SwizzledOffset(token, k, (tokens + kAtomTokens - 1) / kAtomTokens);
}

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_SWIZZLED_H_
