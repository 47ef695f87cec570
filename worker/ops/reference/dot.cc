#include "worker/ops/reference/dot.h"

namespace caravan::worker::reference {
namespace {

bool HasFma() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("fma");
  return has;
#else
  return false;
#endif
}

}  // namespace

float Chain(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
            int64_t count, float acc) {
  return HasFma() ? ChainFma(a, a_stride, b, b_stride, count, acc)
                  : ChainPortable(a, a_stride, b, b_stride, count, acc);
}

void ChainRows(const float* x, const float* w, int64_t stride, int64_t rows,
               int64_t count, float* out) {
  if (HasFma()) {
    ChainRowsFma(x, w, stride, rows, count, out);
  } else {
    ChainRowsPortable(x, w, stride, rows, count, out);
  }
}

}  // namespace caravan::worker::reference
