// Chains of fused multiply-adds (ops.h): the inner loop of everything.
#ifndef CARAVAN_WORKER_OPS_REFERENCE_DOT_H_
#define CARAVAN_WORKER_OPS_REFERENCE_DOT_H_

#include <cstdint>

namespace caravan::worker::reference {

// The chain over i in [0, count) of a[i * a_stride] * b[i * b_stride], started
// from `acc`: acc = fma(a, b, acc), ascending.
float Chain(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
            int64_t count, float acc);

// out[r] = the chain over k of x[k] * w[r * stride + k], for r in [0, rows).
void ChainRows(const float* x, const float* w, int64_t stride, int64_t rows,
               int64_t count, float* out);

// The two forms behind the functions above. FMA needs the instructions.
float ChainFma(const float* a, int64_t a_stride, const float* b,
               int64_t b_stride, int64_t count, float acc);
float ChainPortable(const float* a, int64_t a_stride, const float* b,
                    int64_t b_stride, int64_t count, float acc);
void ChainRowsFma(const float* x, const float* w, int64_t stride, int64_t rows,
                  int64_t count, float* out);
void ChainRowsPortable(const float* x, const float* w, int64_t stride,
                       int64_t rows, int64_t count, float* out);

}  // namespace caravan::worker::reference

#endif  // CARAVAN_WORKER_OPS_REFERENCE_DOT_H_
