// Products of packed group-format weights with int8 activations: one table of
// functions per instruction set, all from int8_panel.inc, all with equal bits.
// Arguments are plain pointers on purpose: no inline function with external
// linkage may be compiled with a file's special instructions.
//
//   y[t, r] = Tree8(segments) of worker/ops/ops.h, a segment being IntGroups
//   of ops.h: over its groups g ascending from 0, of each half (16 elements)
//   where the halves have scales of their own, else of the whole group,
//     acc = fma(fp32(isum), weight_scale * activation_scale, acc),
//   isum the exact integer sum of the products, the product of the scales one
//   rounding; then, in formats with a minimum,
//     acc = fma(weight_min, activation_weighted_sum, acc).
//
// Thread-safe: functions of their arguments.
#ifndef CARAVAN_WORKER_QUANT_INT8_PANEL_H_
#define CARAVAN_WORKER_QUANT_INT8_PANEL_H_

#include <cstdint>

namespace caravan::worker::quant {

// What lies in a packed group, for each vector of 16 rows: codes, unsigned
// (q + 128 of 8 bits, q + 8 of 4; q itself in formats with a minimum), and
// scales. Formats "OfK" have two levels: small integers for each group, and
// binary16 for each 8 groups.
enum class Int8Format {
  kBytes,           // 512 bytes of codes; [16] fp16 scale
  kNibbles,         // 256 bytes of codes; [16] fp16 scale
  kBytesMin,        // 512; [16] fp16 scale, [16] fp16 min
  kNibblesMin,      // 256; [16] fp16 scale, [16] fp16 min
  kBytesOfK,        // 512; [16] u8 scale, [16] u8 min; by 8: as kBytesMin
  kNibblesOfK,      // 256; [16] u8 scale, [16] u8 min; by 8: as kNibblesMin
  kBytesHalvesOfK,  // 512; [16] i8 scale of each half; by 8: [16] fp16 scale
};
inline constexpr int kInt8Formats = 7;

// A panel is up to 4 vectors of 16 rows, stored as one stream: for each group
// [vector][codes], then [vector][scales]; formats of two levels have
// [vector][outer scales] before each 8 groups. Step j of a group's codes holds
// elements 4 j to 4 j + 3 of each of the 16 rows. Bytes: 8 steps of 64 bytes.
// Nibbles: 4 times 64 bytes, step i in the low and step i + 4 in the high.
inline constexpr int kLanes = 16;
inline constexpr int kPanelVectors = 4;
inline constexpr int kPanelRows = kLanes * kPanelVectors;
inline constexpr int kOuterGroups = 8;

struct Int8PanelArgs {
  const void* data = nullptr;
  int vectors = kPanelVectors;
  const int64_t* borders = nullptr;  // segments + 1, in elements of K
  int segments = 1;                  // 1 or 8
  const void* x = nullptr;           // (tokens) rows of ActivationGroup
  int64_t x_stride = 0;              // bytes
  int64_t tokens = 0;
  float* out = nullptr;  // (tokens, 64): rows of the panel
  int64_t out_stride = 0;
  // What is read next, or nothing: it comes into the second cache while several
  // tokens meet this panel.
  const void* next = nullptr;
  int64_t next_bytes = 0;
};

struct Int8Table {
  const char* name;
  void (*panels[kInt8Formats])(const Int8PanelArgs& args);  // by Int8Format
  // QuantizeActivations of int8_activations.h.
  void (*quantize)(const float* x, int64_t groups, void* activation_groups);
};

// Null where the compiler or the machine cannot.
const Int8Table* Avx512VnniInt8();
const Int8Table* Avx2Int8();
const Int8Table* PortableInt8();

}  // namespace caravan::worker::quant

#endif  // CARAVAN_WORKER_QUANT_INT8_PANEL_H_
