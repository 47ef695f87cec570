// 512-bit vectors, and one instruction for the dot products of bf16 pairs.
#include "worker/ops/cpu/kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BF16__)

#include <immintrin.h>

#include "worker/ops/canonical_math.h"

namespace caravan::worker::cpu {
namespace avx512bf16 {
namespace {

#define CARAVAN_AVX512_BF16
#include "worker/ops/cpu/simd_avx512.inc"
// After the lanes:
#include "worker/ops/cpu/kernels.inc"

}  // namespace
}  // namespace avx512bf16

const KernelTable* Avx512Bf16Kernels() {
  const bool can = __builtin_cpu_supports("avx512f") &&
                   __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512bf16");
  return can ? &avx512bf16::kTable : nullptr;
}

}  // namespace caravan::worker::cpu

#else  // the compiler's target is another machine

namespace caravan::worker::cpu {
const KernelTable* Avx512Bf16Kernels() { return nullptr; }
}  // namespace caravan::worker::cpu

#endif
