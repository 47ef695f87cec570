// The inner loops of the cpu backend: one table of functions per instruction
// set, all from kernels.inc, all with the bits that ops.h fixes. Arguments are
// plain pointers on purpose: no inline function with external linkage may be
// compiled with a file's special instructions and then be linked elsewhere.
//
// Thread-safe: functions of their arguments.
#ifndef CARAVAN_WORKER_OPS_CPU_KERNELS_H_
#define CARAVAN_WORKER_OPS_CPU_KERNELS_H_

#include <cstdint>

namespace caravan::worker::cpu {

// Rows of a vector, and vectors of a panel: a panel is up to 64 rows of a
// matrix, stored as one stream in the order in which it is read:
//   bf16  [pair of k][vector][16 rows][2 k]; an odd last k of a segment has a
//         zero beside it, which no chain sees
//   fp16  [k][vector][16 rows]
//   fp32  [k][vector][16 rows]
inline constexpr int kLanes = 16;
inline constexpr int kPanelVectors = 4;
inline constexpr int kPanelRows = kLanes * kPanelVectors;

// What happens to the products of a panel.
enum class Epilogue {
  kStore,   // out = y + bias
  kAdd,     // out += y + bias
  kGateUp,  // vectors are gate, up, gate, up: out = silu(g + bias) * (u +
            // bias2)
};

struct PanelArgs {
  const void* data = nullptr;
  int vectors = kPanelVectors;
  int64_t valid = kPanelRows;  // elements of out per token; the rest is padding
  const int64_t* borders = nullptr;  // segments + 1
  int segments = 1;                  // 1 or 8
  const float* x = nullptr;          // (tokens, K); null: x_pairs
  int64_t x_stride = 0;
  // For panel_bf16_dot: (tokens, pairs of k) of bf16, the first of a pair in
  // the low half; pairs begin anew with each segment, an odd last k has a zero
  // beside it.
  const uint32_t* x_pairs = nullptr;
  int64_t x_pairs_stride = 0;
  const float* table = nullptr;  // for panel_four_bit: 16 values of codes
  int64_t tokens = 0;
  Epilogue epilogue = Epilogue::kStore;
  const float* bias = nullptr;   // (valid) or null
  const float* bias2 = nullptr;  // (valid) or null; kGateUp
  float* out = nullptr;          // (tokens, valid)
  int64_t out_stride = 0;
  // What is read next, or nothing: it comes into the second cache while several
  // tokens meet this panel.
  const void* next = nullptr;
  int64_t next_bytes = 0;
};

// Query rows against one split of keys of one kv head. Keys and values are of
// the function's type.
struct AttendSplitArgs {
  const void* const* keys = nullptr;    // per block: [head_dim][16 slots]
  const void* const* values = nullptr;  // per block: [16 slots][value_stride]
  int64_t value_stride = 0;             // head_dim rounded up to 16
  int head_dim = 0;
  float scale = 1;
  int rows = 0;
  const float* const* q = nullptr;  // per row: (head_dim)
  const int32_t* limits = nullptr;  // visible keys, in [1, 256], ascending
  bool first = true;                // nothing to merge with yet
  float* max = nullptr;             // per row: M
  float* sum = nullptr;             // per row: L
  float* const* out = nullptr;      // per row: O, (head_dim)
};

// Merges one later split (max, sum, o) into (M, L, O).
struct MergeArgs {
  int head_dim = 0;
  float max = 0;
  float sum = 0;
  const float* o = nullptr;
  float* into_max = nullptr;
  float* into_sum = nullptr;
  float* into_o = nullptr;
};

struct KernelTable {
  const char* name;
  // Of the instruction set whose fp32 kernels these are.
  const char* fp32_name;
  void (*panel_fp32)(const PanelArgs& args);
  void (*panel_bf16)(const PanelArgs& args);
  void (*panel_fp16)(const PanelArgs& args);
  // bf16 weights with bf16 activations.
  void (*panel_bf16_dot)(const PanelArgs& args);
  // 4-bit codes of a table, packed by worker/quant/four_bit_product.h.
  void (*panel_four_bit)(const PanelArgs& args);
  // One token's products of a panel, (64), to where they belong: what the
  // panel_ functions end with. Of `args` the epilogue, biases and `valid`.
  void (*finish)(const PanelArgs& args, const float* y, float* out);
  // ToBf16 of worker/tensor/dtype.h for each value.
  void (*round_bf16)(const float* x, int64_t count, uint16_t* out);
  // out may alias x.
  void (*rms_norm)(const float* x, const float* weight, float epsilon,
                   int64_t dim, float* out);
  // Rotates one head; out may alias x.
  void (*rope)(const float* x, const float* cos, const float* sin,
               int64_t head_dim, float* out);
  void (*attend_split_fp32)(const AttendSplitArgs& args);
  void (*attend_split_bf16)(const AttendSplitArgs& args);
  void (*attend_split_fp16)(const AttendSplitArgs& args);
  void (*merge_split)(const MergeArgs& args);
  // o[i] /= sum.
  void (*divide)(float* o, float sum, int64_t count);
  // Greatest of the values, and the Lanes16 sum of Exp(x - greatest).
  void (*exp_sum)(const float* x, int64_t count, float* max, float* sum);
  // The greatest value; false in *finite when one is NaN or infinite (then the
  // maximum means nothing).
  float (*max_finite)(const float* x, int64_t count, bool* finite);
  // How many values are greater than `limit`.
  int64_t (*count_greater)(const float* x, int64_t count, float limit);
  // The first index whose value equals `wanted`, or count.
  int64_t (*find)(const float* x, int64_t count, float wanted);
  // SampleWeight of worker/ops/sample.h for each logit.
  void (*sample_weights)(const float* logits, int64_t count, float max,
                         float temperature, uint64_t* weights);
  // out[i] = Exp(x[i]).
  void (*exp)(const float* x, int64_t count, float* out);

  // Probes of the machine's ceilings.
  // Sums `bytes` (a multiple of 1,024), prefetching so far ahead (0: not).
  float (*probe_read)(const void* data, int64_t bytes, int64_t prefetch_bytes);
  // So many rounds of independent fused multiply-adds in registers; returns
  // the floating-point operations done, and a sum that keeps them alive.
  double (*probe_fma)(int64_t rounds, float* sum);
  // The same of dot products of bf16 pairs.
  double (*probe_bf16_dot)(int64_t rounds, float* sum);
};

// Null where the compiler or the machine cannot.
const KernelTable* Avx512Bf16Kernels();
const KernelTable* Avx512Kernels();
const KernelTable* Avx2Kernels();
const KernelTable* PortableKernels();

}  // namespace caravan::worker::cpu

#endif  // CARAVAN_WORKER_OPS_CPU_KERNELS_H_
