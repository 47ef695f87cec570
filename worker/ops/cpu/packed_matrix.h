// Weights in the order in which the kernels read them (kernels.h), and paged
// keys and values.
#ifndef CARAVAN_WORKER_OPS_CPU_PACKED_MATRIX_H_
#define CARAVAN_WORKER_OPS_CPU_PACKED_MATRIX_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/ops/backend.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/ops/ops.h"
#include "worker/quant/int8_panel.h"
#include "worker/tensor/buffer.h"
#include "worker/tensor/buffer_arena.h"

namespace caravan::worker::cpu {

// Immutable after packing.
class CpuMatrix final : public PackedMatrix {
 public:
  // Shape of rows that are packed alike; fields are valid without data.
  struct Layout {
    PackKind kind = PackKind::kQkv;
    // As packed: fp32, bf16 or fp16; of a table, of integer products and of
    // 4-bit codes, the type in the file.
    WeightType type = WeightType::kFp32;
    std::optional<quant::Int8Format> int8;  // of integer products
    int64_t first_row = 0;                  // among the matrix's
    int64_t rows = 0;
    int64_t cols = 0;
    int segments = 1;
    std::array<int64_t, kSegments + 1> borders = {};  // of cols
    int64_t vectors = 0;       // of 16 rows, padding included
    int64_t vector_bytes = 0;  // of one vector over all of K

    bool four_bit() const;  // products are those of four_bit_product.h
    int64_t panel_count() const;
    // Pairs of k, which begin anew with each segment.
    int64_t pairs() const;
    int panel_vectors(int64_t panel) const;
    size_t total_bytes() const;
  };
  struct Piece {
    Layout layout;
    BufferSlice buffer;
    const std::byte* panel(int64_t index) const;
    // Where an element of a plain type lies.
    const std::byte* Element(int64_t row, int64_t k) const;
  };

  // One layout, or several where q, k and v have types of their own.
  static std::vector<Layout> LayoutsOf(std::span<const RawMatrix> parts,
                                       const PackSpec& spec,
                                       ActivationType activations);
  // Of a reservation of the arena.
  static size_t BytesOf(std::span<const Layout> layouts);

  // Packs into memory of `arena`, on all members of `team`. kMemoryPlan when
  // memory is refused.
  static absl::StatusOr<std::unique_ptr<CpuMatrix>> Pack(
      std::span<const RawMatrix> parts, const PackSpec& spec,
      ActivationType activations, BufferArena& arena, ThreadTeam& team);

  std::span<const Piece> pieces() const { return pieces_; }
  int64_t panel_count() const;
  // Whether some rows meet int8 activations, or all meet bf16 ones.
  bool has_int8() const;
  bool is_bf16() const;
  // The panel of this number among those of all pieces.
  std::span<const std::byte> PanelBytes(int64_t panel) const;

  // Words of 32 bits that a row of rounded activations takes.
  int64_t rounded_words() const;

  // out[k] = row `row`, widened. For kEmbedding, and kHead, so that tied
  // embeddings need only the head's copy.
  void WidenRow(int64_t row, float* out) const;

 private:
  explicit CpuMatrix(std::vector<Piece> pieces);

  const std::vector<Piece> pieces_;
};

// Keys and values: [block][layer][kv head], so that a block's memory is touched
// when the block is first used; each [head_dim][16 slots] of keys
// and then [16 slots][head_dim rounded up to 16] of values, fp32, bf16 or fp16.
class CpuKv final : public KvStorage {
 public:
  static size_t Bytes(const KvSpec& spec, DType dtype);
  static absl::StatusOr<std::unique_ptr<CpuKv>> Create(const KvSpec& spec,
                                                       DType dtype);

  std::byte* Keys(int32_t layer, int32_t block, int32_t head) const {
    return base_ + HeadOffset(layer, block, head) * size_;
  }
  std::byte* Values(int32_t layer, int32_t block, int32_t head) const {
    return Keys(layer, block, head) + kBlockSlots * spec_.head_dim * size_;
  }
  int64_t value_stride() const { return value_stride_; }  // in elements
  DType dtype() const { return dtype_; }

  // Rounds one slot's key or value, (head_dim), into the type.
  void StoreKey(const float* key, int64_t slot, std::byte* keys) const;
  void StoreValue(const float* value, int64_t slot, std::byte* values) const;

  void CopyBlock(const BlockCopy& copy);

 private:
  CpuKv(const KvSpec& spec, DType dtype, Buffer buffer);
  int64_t HeadOffset(int32_t layer, int32_t block, int32_t head) const {
    return int64_t{block} * block_elements_ + layer * layer_elements_ +
           head * head_elements_;
  }
  // `step` elements lie between those of the source in `target`.
  void StoreRounded(const float* source, int64_t step, std::byte* target) const;

  const KvSpec spec_;
  const DType dtype_;
  const int64_t size_;  // bytes of an element
  const int64_t value_stride_;
  const int64_t head_elements_;
  const int64_t layer_elements_;  // of one block
  const int64_t block_elements_;
  Buffer buffer_;
  std::byte* const base_;
};

}  // namespace caravan::worker::cpu

#endif  // CARAVAN_WORKER_OPS_CPU_PACKED_MATRIX_H_
