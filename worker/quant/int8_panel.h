// Products of packed group-format weights with int8 activations: one table of
// functions per instruction set, all from int8_panel.inc, all with equal bits.
// Arguments are plain pointers on purpose: no inline function with external
// linkage may be compiled with a file's special instructions.
//
//   y[t, r] = Tree8(segments) of worker/ops/ops.h, a segment being, over its
//   groups g ascending from 0,
//     acc = fma(fp32(isum), weight_scale * activation_scale, acc),
//   isum the exact integer sum of the products of a group, the product of the
//   scales one rounding.
//
// Thread-safe: functions of their arguments.
#ifndef CARAVAN_WORKER_QUANT_INT8_PANEL_H_
#define CARAVAN_WORKER_QUANT_INT8_PANEL_H_

#include <cstdint>

namespace caravan::worker::quant {

// A panel is up to 4 vectors of 16 rows, stored as one stream:
//   [group][vector][codes] then, of the same group, [vector][16 fp16 scales].
// Codes are unsigned (q + 128 of 8 bits, q + 8 of 4): step j of a group holds
// elements 4 j to 4 j + 3 of each of the 16 rows. Bytes: 8 steps of 64 bytes.
// Nibbles: 4 times 64 bytes, step i in the low and step i + 4 in the high.
inline constexpr int kLanes = 16;
inline constexpr int kPanelVectors = 4;
inline constexpr int kPanelRows = kLanes * kPanelVectors;
inline constexpr int kScaleBytes = 2 * kLanes;

struct Int8PanelArgs {
  const void* data = nullptr;
  int vectors = kPanelVectors;
  const int64_t* borders = nullptr;  // segments + 1, in groups
  int segments = 1;                  // 1 or 8
  const void* x = nullptr;           // (tokens) rows of ActivationGroup
  int64_t x_stride = 0;              // bytes
  int64_t tokens = 0;
  float* out = nullptr;  // (tokens, 64): rows of the panel
  int64_t out_stride = 0;
};

struct Int8Table {
  const char* name;
  void (*panel_q8)(const Int8PanelArgs& args);
  void (*panel_q4)(const Int8PanelArgs& args);
};

// Null where the compiler or the machine cannot.
const Int8Table* Avx512VnniInt8();
const Int8Table* PortableInt8();

}  // namespace caravan::worker::quant

#endif  // CARAVAN_WORKER_QUANT_INT8_PANEL_H_
