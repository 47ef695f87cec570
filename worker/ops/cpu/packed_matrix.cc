#include "worker/ops/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "common/status/status_macros.h"
#include "worker/ops/cpu/kernels.h"
#include "worker/quant/four_bit_product.h"
#include "worker/quant/int8_packing.h"
#include "worker/quant/weight_group.h"
#include "worker/tensor/four_bit.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker::cpu {
namespace {

constexpr int64_t RoundUp(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// The type that all parts have, else fp32.
WeightType CommonType(std::span<const RawMatrix> parts) {
  for (const RawMatrix& part : parts) {
    if (part.type != parts[0].type) return WeightType::kFp32;
  }
  return parts[0].type;
}

DType PlainType(const CpuMatrix::Layout& layout) {
  return *PlainDType(layout.type);
}

// Where a packed row comes from; no part is padding.
struct SourceRow {
  const RawMatrix* part = nullptr;
  int64_t row = 0;
};

SourceRow FindRow(std::span<const RawMatrix> parts, int64_t row) {
  for (const RawMatrix& part : parts) {
    if (row < part.rows) return {&part, row};
    row -= part.rows;
  }
  return {};
}

// Row `lane` of packed vector `vector`.
SourceRow SourceOf(std::span<const RawMatrix> parts, PackKind kind,
                   int64_t vector, int lane) {
  if (kind != PackKind::kGateUp) {
    return FindRow(parts, vector * kLanes + lane);
  }
  return FindRow({&parts[vector % 2], 1}, vector / 2 * kLanes + lane);
}

// The 16 rows of a vector in the packed type; null is padding.
class VectorRows {
 public:
  VectorRows(std::span<const RawMatrix> parts, const CpuMatrix::Layout& layout,
             int64_t vector) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const SourceRow source = SourceOf(parts, layout.kind, vector, lane);
      if (source.part == nullptr) continue;
      lanes_[lane] = source.part->type == layout.type
                         ? source.part->row(source.row)
                         : Widen(source, lane);
    }
  }
  const std::array<const std::byte*, kLanes>& lanes() const { return lanes_; }

 private:
  const std::byte* Widen(const SourceRow& source, int lane) {
    const size_t cols = static_cast<size_t>(source.part->cols);
    widened_.resize(kLanes * cols);
    float* const target = widened_.data() + static_cast<size_t>(lane) * cols;
    DequantizeRow(*source.part, source.row, target);
    return reinterpret_cast<const std::byte*>(target);
  }

  std::array<const std::byte*, kLanes> lanes_ = {};
  std::vector<float> widened_;
};

template <typename Bits>
Bits LoadBits(const std::byte* p) {
  Bits bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}

// `count` elements of a row to its lane; those of a step of k lie `step` bytes
// behind those of the one before.
template <typename Bits>
void PackRun(const std::byte* source, int64_t count, int64_t step,
             std::byte* target) {
  for (int64_t k = 0; k < count; ++k, target += step) {
    std::memcpy(target, source + k * sizeof(Bits), sizeof(Bits));
  }
}

// The same in pairs; an odd last one has a zero beside it.
void PackBf16Run(const std::byte* source, int64_t count, int64_t step,
                 std::byte* target) {
  PackRun<uint32_t>(source, count / 2, step, target);
  if (count % 2 == 0) return;
  const uint32_t last = LoadBits<uint16_t>(source + 2 * (count - 1));
  std::memcpy(target + count / 2 * step, &last, sizeof(last));
}

// Elements of k that are packed for all lanes before the next: their target
// lines stay in the first-level cache.
constexpr int64_t kRunLength = 256;

struct Target {
  std::byte* data;  // of lane 0
  int64_t step;     // bytes
};

// Columns [k, k + count) of all lanes.
void PackColumns(std::span<const std::byte* const> lanes, DType dtype,
                 int64_t k, int64_t count, Target target) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lanes[lane] == nullptr) continue;  // padding: the buffer is zero
    const std::byte* const source =
        lanes[lane] + k * static_cast<int64_t>(SizeOf(dtype));
    switch (dtype) {
      case DType::kFp32:
        PackRun<uint32_t>(source, count, target.step, target.data + lane * 4);
        break;
      case DType::kFp16:
        PackRun<uint16_t>(source, count, target.step, target.data + lane * 2);
        break;
      case DType::kBf16:
        PackBf16Run(source, count, target.step, target.data + lane * 4);
        break;
      case DType::kFp8:  // no plain weights
        break;
    }
  }
}

// Pairs of k begin anew with each segment.
void PackPlainVector(const VectorRows& rows, const CpuMatrix::Layout& layout,
                     Target target) {
  const DType dtype = PlainType(layout);
  const int64_t per_step = dtype == DType::kBf16 ? 2 : 1;
  for (int s = 0; s < layout.segments; ++s) {
    const int64_t end = layout.borders[s + 1];
    for (int64_t k = layout.borders[s]; k < end; k += kRunLength) {
      const int64_t count = std::min(kRunLength, end - k);
      PackColumns(rows.lanes(), dtype, k, count, target);
      target.data += (count + per_step - 1) / per_step * target.step;
    }
  }
}

// Rows one after the other, in their own type, else in fp32.
void PackTable(std::span<const RawMatrix> parts, WeightType type,
               std::byte* target) {
  for (const RawMatrix& part : parts) {
    const int64_t bytes = RowBytes(type, part.cols);
    for (int64_t row = 0; row < part.rows; ++row, target += bytes) {
      if (part.type == type) {
        std::memcpy(target, part.row(row), static_cast<size_t>(bytes));
      } else {
        DequantizeRow(part, row, reinterpret_cast<float*>(target));
      }
    }
  }
}

// Bytes of a vector in one step of k.
int64_t StepBytes(DType dtype) { return dtype == DType::kFp16 ? 32 : 64; }

void PackVector(std::span<const RawMatrix> parts,
                const CpuMatrix::Layout& layout, int64_t vector,
                std::byte* data) {
  const VectorRows rows(parts, layout, vector);
  const int64_t panel = vector / kPanelVectors;
  const int vectors = layout.panel_vectors(panel);
  const int place = static_cast<int>(vector % kPanelVectors);
  data += panel * kPanelVectors * layout.vector_bytes;
  if (layout.int8) {
    quant::PackVector(layout.type, rows.lanes(), layout.cols / kGroupElements,
                      {*layout.int8, vectors, place}, data);
    return;
  }
  if (layout.four_bit()) {
    quant::PackFourBit(rows.lanes(), layout.cols / kFourBitBlock,
                       {vectors, place}, data);
    return;
  }
  const int64_t step_bytes = StepBytes(PlainType(layout));
  PackPlainVector(
      rows, layout,
      {.data = data + place * step_bytes, .step = vectors * step_bytes});
}

// Runs of parts that are packed alike.
std::vector<std::span<const RawMatrix>> RunsOf(std::span<const RawMatrix> parts,
                                               PackKind kind,
                                               ActivationType activations) {
  if (kind != PackKind::kQkv || activations != ActivationType::kInt8) {
    return {parts};
  }
  std::vector<std::span<const RawMatrix>> runs;
  for (size_t begin = 0; begin < parts.size();) {
    size_t end = begin + 1;
    while (end < parts.size() && parts[end].type == parts[begin].type) ++end;
    runs.push_back(parts.subspan(begin, end - begin));
    begin = end;
  }
  return runs;
}

// Columns of a matrix and where its segments end.
void SetSegments(const PackSpec& spec, CpuMatrix::Layout& layout) {
  layout.borders[1] = layout.cols;
  if (spec.kind != PackKind::kHeadSegments &&
      spec.kind != PackKind::kGroupSegments) {
    return;
  }
  const int64_t group = layout.int8         ? kGroupElements
                        : layout.four_bit() ? kFourBitBlock
                                            : 1;
  layout.segments = kSegments;
  layout.borders =
      OwnedBorders(spec.owned, layout.cols, std::lcm(spec.unit, group));
}

CpuMatrix::Layout LayoutOf(std::span<const RawMatrix> parts,
                           const PackSpec& spec, ActivationType activations) {
  CpuMatrix::Layout layout;
  layout.kind = spec.kind;
  layout.type = CommonType(parts);
  layout.cols = parts[0].cols;
  for (const RawMatrix& part : parts) layout.rows += part.rows;
  layout.vectors = spec.kind == PackKind::kGateUp
                       ? 2 * (RoundUp(parts[0].rows, kLanes) / kLanes)
                       : RoundUp(layout.rows, kLanes) / kLanes;
  if (spec.kind == PackKind::kEmbedding) {
    layout.borders[1] = layout.cols;
    return layout;
  }
  if (activations == ActivationType::kInt8) {
    layout.int8 = quant::Int8FormatOf(layout.type);
  }
  if (!layout.int8 && !layout.four_bit() && !IsPlain(layout.type)) {
    layout.type = WeightType::kFp32;
  }
  SetSegments(spec, layout);
  if (layout.int8) {
    layout.vector_bytes =
        quant::VectorBytes(*layout.int8, layout.cols / kGroupElements);
  } else if (layout.four_bit()) {
    layout.vector_bytes =
        quant::FourBitVectorBytes(layout.cols / kFourBitBlock);
  } else {
    const DType dtype = PlainType(layout);
    const int64_t steps = dtype == DType::kBf16 ? layout.pairs() : layout.cols;
    layout.vector_bytes = steps * StepBytes(dtype);
  }
  return layout;
}

absl::StatusOr<CpuMatrix::Piece> PackPiece(std::span<const RawMatrix> parts,
                                           const CpuMatrix::Layout& layout,
                                           BufferArena& arena,
                                           ThreadTeam& team) {
  CARAVAN_ASSIGN_OR_RETURN(BufferSlice buffer,
                           arena.Take(layout.total_bytes()));
  std::byte* const data = buffer.data();
  if (layout.kind == PackKind::kEmbedding) {
    PackTable(parts, layout.type, data);
  } else {
    WorkShares shares;
    shares.Reset(layout.vectors, team.size());
    team.Run([&](int member) {
      for (int64_t v; (v = shares.Next(member)) >= 0;) {
        PackVector(parts, layout, v, data);
      }
    });
  }
  return CpuMatrix::Piece{layout, std::move(buffer)};
}

}  // namespace

bool CpuMatrix::Layout::four_bit() const {
  return kind != PackKind::kEmbedding && quant::FourBitTable(type) != nullptr;
}

int64_t CpuMatrix::Layout::panel_count() const {
  return (vectors + kPanelVectors - 1) / kPanelVectors;
}

int64_t CpuMatrix::Layout::pairs() const {
  int64_t pairs = 0;
  for (int s = 0; s < segments; ++s) {
    pairs += (borders[s + 1] - borders[s] + 1) / 2;
  }
  return pairs;
}

int CpuMatrix::Layout::panel_vectors(int64_t panel) const {
  return static_cast<int>(
      std::min<int64_t>(kPanelVectors, vectors - panel * kPanelVectors));
}

size_t CpuMatrix::Layout::total_bytes() const {
  return static_cast<size_t>(kind == PackKind::kEmbedding
                                 ? rows * RowBytes(type, cols)
                                 : vectors * vector_bytes);
}

const std::byte* CpuMatrix::Piece::panel(int64_t index) const {
  return buffer.data() + index * kPanelVectors * layout.vector_bytes;
}

const std::byte* CpuMatrix::Piece::Element(int64_t row, int64_t k) const {
  const DType dtype = PlainType(layout);
  const int64_t index = row / kPanelRows;
  const int64_t vector = row % kPanelRows / kLanes;
  const int64_t step = layout.panel_vectors(index);
  const int64_t lane = row % kLanes;
  const std::byte* const base = panel(index);
  if (dtype == DType::kBf16) {
    return base + (k / 2 * step + vector) * 64 + lane * 4 + k % 2 * 2;
  }
  return base + ((k * step + vector) * kLanes + lane) *
                    static_cast<int64_t>(SizeOf(dtype));
}

std::vector<CpuMatrix::Layout> CpuMatrix::LayoutsOf(
    std::span<const RawMatrix> parts, const PackSpec& spec,
    ActivationType activations) {
  std::vector<Layout> layouts;
  int64_t first_row = 0;
  for (const auto run : RunsOf(parts, spec.kind, activations)) {
    Layout& layout = layouts.emplace_back(LayoutOf(run, spec, activations));
    layout.first_row = first_row;
    first_row += layout.rows;
  }
  return layouts;
}

size_t CpuMatrix::BytesOf(std::span<const Layout> layouts) {
  size_t bytes = 0;
  for (const Layout& layout : layouts) {
    bytes += BufferArena::SliceBytes(layout.total_bytes());
  }
  return bytes;
}

CpuMatrix::CpuMatrix(std::vector<Piece> pieces) : pieces_(std::move(pieces)) {
  cols = pieces_[0].layout.cols;
  for (const Piece& piece : pieces_) {
    rows += piece.layout.rows;
    bytes += BufferArena::SliceBytes(piece.layout.total_bytes());
    data_bytes += piece.layout.total_bytes();
  }
}

absl::StatusOr<std::unique_ptr<CpuMatrix>> CpuMatrix::Pack(
    std::span<const RawMatrix> parts, const PackSpec& spec,
    ActivationType activations, BufferArena& arena, ThreadTeam& team) {
  const std::vector<Layout> layouts = LayoutsOf(parts, spec, activations);
  std::vector<Piece> pieces;
  for (const auto run : RunsOf(parts, spec.kind, activations)) {
    CARAVAN_ASSIGN_OR_RETURN(
        Piece piece, PackPiece(run, layouts[pieces.size()], arena, team));
    pieces.push_back(std::move(piece));
  }
  return std::unique_ptr<CpuMatrix>(new CpuMatrix(std::move(pieces)));
}

int64_t CpuMatrix::panel_count() const {
  int64_t count = 0;
  for (const Piece& piece : pieces_) count += piece.layout.panel_count();
  return count;
}

std::span<const std::byte> CpuMatrix::PanelBytes(int64_t panel) const {
  const Piece* piece = pieces_.data();
  for (; panel >= piece->layout.panel_count(); ++piece) {
    panel -= piece->layout.panel_count();
  }
  return {piece->panel(panel),
          static_cast<size_t>(piece->layout.panel_vectors(panel) *
                              piece->layout.vector_bytes)};
}

bool CpuMatrix::has_int8() const {
  return std::any_of(pieces_.begin(), pieces_.end(), [](const Piece& piece) {
    return piece.layout.int8.has_value();
  });
}

bool CpuMatrix::is_bf16() const {
  return pieces_.size() == 1 && pieces_[0].layout.type == WeightType::kBf16;
}

int64_t CpuMatrix::rounded_words() const {
  if (!has_int8()) return pieces_[0].layout.pairs();
  return cols / kGroupElements *
         static_cast<int64_t>(sizeof(ActivationGroup) / sizeof(uint32_t));
}

void CpuMatrix::WidenRow(int64_t row, float* out) const {
  const Piece& piece = pieces_[0];
  const Layout& layout = piece.layout;
  if (layout.kind == PackKind::kEmbedding) {
    DequantizeRow(layout.type,
                  piece.buffer.data() + row * RowBytes(layout.type, cols), cols,
                  out);
    return;
  }
  if (layout.int8) {
    const int64_t panel = row / kPanelRows;
    quant::UnpackRow({*layout.int8, layout.panel_vectors(panel),
                      static_cast<int>(row % kPanelRows / kLanes)},
                     static_cast<int>(row % kLanes), cols / kGroupElements,
                     piece.panel(panel), out);
    return;
  }
  if (layout.four_bit()) {
    const int64_t panel = row / kPanelRows;
    quant::UnpackFourBit(layout.type,
                         {layout.panel_vectors(panel),
                          static_cast<int>(row % kPanelRows / kLanes)},
                         static_cast<int>(row % kLanes), cols / kFourBitBlock,
                         piece.panel(panel), out);
    return;
  }
  for (int64_t k = 0; k < cols; ++k) {
    const std::byte* const p = piece.Element(row, k);
    switch (PlainType(layout)) {
      case DType::kFp32:
        out[k] = LoadBits<float>(p);
        break;
      case DType::kBf16:
        out[k] = ToFloat(Bf16{LoadBits<uint16_t>(p)});
        break;
      case DType::kFp16:
        out[k] = ToFloat(Fp16{LoadBits<uint16_t>(p)});
        break;
      case DType::kFp8:
        break;
    }
  }
}

namespace {

int64_t HeadElements(const KvSpec& spec) {
  return kBlockSlots * (spec.head_dim + RoundUp(spec.head_dim, kLanes));
}

size_t KvBytes(const KvSpec& spec, DType dtype) {
  return static_cast<size_t>(HeadElements(spec)) *
         static_cast<size_t>(spec.kv_heads) * static_cast<size_t>(spec.layers) *
         static_cast<size_t>(spec.block_count) * SizeOf(dtype);
}

template <typename T, typename Round>
void StoreStrided(const float* source, int64_t count, int64_t step,
                  std::byte* target, const Round& round) {
  for (int64_t i = 0; i < count; ++i) {
    const T value = round(source[i]);
    std::memcpy(target + i * step * static_cast<int64_t>(sizeof(T)), &value,
                sizeof(T));
  }
}

}  // namespace

size_t CpuKv::Bytes(const KvSpec& spec, DType dtype) {
  return Buffer::AllocatedBytes(KvBytes(spec, dtype));
}

CpuKv::CpuKv(const KvSpec& spec, DType dtype, Buffer buffer)
    : spec_(spec),
      dtype_(dtype),
      size_(static_cast<int64_t>(SizeOf(dtype))),
      value_stride_(RoundUp(spec.head_dim, kLanes)),
      head_elements_(HeadElements(spec)),
      layer_elements_(spec.kv_heads * HeadElements(spec)),
      block_elements_(spec.layers * layer_elements_),
      buffer_(std::move(buffer)),
      base_(buffer_.data()) {
  layers = spec.layers;
  block_count = spec.block_count;
  bytes = Bytes(spec, dtype);
}

absl::StatusOr<std::unique_ptr<CpuKv>> CpuKv::Create(const KvSpec& spec,
                                                     DType dtype) {
  absl::StatusOr<Buffer> buffer = Buffer::Allocate(KvBytes(spec, dtype));
  if (!buffer.ok()) return buffer.status();
  return std::unique_ptr<CpuKv>(new CpuKv(spec, dtype, *std::move(buffer)));
}

void CpuKv::StoreRounded(const float* source, int64_t step,
                         std::byte* target) const {
  switch (dtype_) {
    case DType::kFp32:
      return StoreStrided<float>(source, spec_.head_dim, step, target,
                                 [](float x) { return x; });
    case DType::kBf16:
      return StoreStrided<Bf16>(source, spec_.head_dim, step, target, ToBf16);
    case DType::kFp16:
      return StoreStrided<Fp16>(source, spec_.head_dim, step, target, ToFp16);
    case DType::kFp8:  // refused by MakeCpuBackend
      return;
  }
}

void CpuKv::StoreKey(const float* key, int64_t slot, std::byte* keys) const {
  StoreRounded(key, kBlockSlots, keys + slot * size_);
}

void CpuKv::StoreValue(const float* value, int64_t slot,
                       std::byte* values) const {
  StoreRounded(value, 1, values + slot * value_stride_ * size_);
}

void CpuKv::CopyBlock(const BlockCopy& copy) {
  if (copy.source == copy.target) return;
  std::memcpy(Keys(0, copy.target, 0), Keys(0, copy.source, 0),
              static_cast<size_t>(block_elements_ * size_));
}

}  // namespace caravan::worker::cpu
