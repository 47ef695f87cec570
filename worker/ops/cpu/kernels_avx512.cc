// 512-bit vectors: 24 accumulators, 4 vectors of weights, a broadcast and a
// mask fill the 32 registers.
#include "worker/ops/cpu/kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)

#include <immintrin.h>

#include "worker/ops/canonical_math.h"

namespace caravan::worker::cpu {
namespace avx512 {
namespace {

#include "worker/ops/cpu/simd_avx512.inc"
// After the lanes:
#include "worker/ops/cpu/kernels.inc"

}  // namespace
}  // namespace avx512

const KernelTable* Avx512Kernels() {
  const bool can =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return can ? &avx512::kTable : nullptr;
}

}  // namespace caravan::worker::cpu

#else  // the compiler's target is another machine

namespace caravan::worker::cpu {
const KernelTable* Avx512Kernels() { return nullptr; }
}  // namespace caravan::worker::cpu

#endif
