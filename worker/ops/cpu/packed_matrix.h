// Weights in the order in which the kernels read them (kernels.h), and paged
// keys and values.
#ifndef CARAVAN_WORKER_OPS_CPU_PACKED_MATRIX_H_
#define CARAVAN_WORKER_OPS_CPU_PACKED_MATRIX_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "worker/ops/backend.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/ops/ops.h"
#include "worker/tensor/buffer.h"

namespace caravan::worker::cpu {

// Immutable after packing.
class CpuMatrix final : public PackedMatrix {
 public:
  // Shape of the packed form; fields are valid without data.
  struct Layout {
    PackKind kind = PackKind::kQkv;
    DType dtype = DType::kFp32;
    int64_t rows = 0;
    int64_t cols = 0;
    int segments = 1;
    std::array<int64_t, kSegments + 1> borders = {};  // of cols
    int64_t vectors = 0;       // of 16 rows, padding included
    int64_t vector_bytes = 0;  // of one vector over all of K

    int64_t panel_count() const;
    int panel_vectors(int64_t panel) const;
    size_t total_bytes() const;
  };

  static Layout LayoutOf(std::span<const RawMatrix> parts,
                         const PackSpec& spec);

  // Packs on all members of `team`. kMemoryPlan when memory is refused.
  static absl::StatusOr<std::unique_ptr<CpuMatrix>> Pack(
      std::span<const RawMatrix> parts, const PackSpec& spec, ThreadTeam& team);

  const Layout& layout() const { return layout_; }
  const std::byte* panel(int64_t index) const;

  // out[k] = row `row`, widened. For kEmbedding, and kHead, so that tied
  // embeddings need only the head's copy.
  void WidenRow(int64_t row, float* out) const;

 private:
  CpuMatrix(const Layout& layout, Buffer buffer);
  const std::byte* Element(int64_t row, int64_t k) const;

  const Layout layout_;
  Buffer buffer_;
};

// Keys and values: [block][layer][kv head], so that a block's memory is touched
// when the block is first used; each [head_dim][16 slots] of keys
// and then [16 slots][head_dim rounded up to 16] of values, fp32.
class CpuKv final : public KvStorage {
 public:
  static size_t Bytes(const KvSpec& spec);
  static absl::StatusOr<std::unique_ptr<CpuKv>> Create(const KvSpec& spec);

  float* Keys(int32_t layer, int32_t block, int32_t head) const {
    return base_ + HeadOffset(layer, block, head);
  }
  float* Values(int32_t layer, int32_t block, int32_t head) const {
    return Keys(layer, block, head) + kBlockSlots * spec_.head_dim;
  }
  int64_t value_stride() const { return value_stride_; }

  void CopyBlock(const BlockCopy& copy);

 private:
  CpuKv(const KvSpec& spec, Buffer buffer);
  int64_t HeadOffset(int32_t layer, int32_t block, int32_t head) const {
    return int64_t{block} * block_floats_ + layer * layer_floats_ +
           head * head_floats_;
  }

  const KvSpec spec_;
  const int64_t value_stride_;
  const int64_t head_floats_;
  const int64_t layer_floats_;  // of one block
  const int64_t block_floats_;
  Buffer buffer_;
  float* const base_;
};

}  // namespace caravan::worker::cpu

#endif  // CARAVAN_WORKER_OPS_CPU_PACKED_MATRIX_H_
