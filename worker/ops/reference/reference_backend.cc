#include "worker/ops/reference/reference_backend.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/ops/check.h"
#include "worker/ops/numerics.h"
#include "worker/ops/reference/formulas.h"
#include "worker/ops/sample.h"
#include "worker/quant/four_bit_product.h"
#include "worker/quant/int8_activations.h"
#include "worker/quant/weight_group.h"
#include "worker/tensor/buffer.h"
#include "worker/tensor/four_bit.h"
#include "worker/tensor/fp8.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker {
namespace {

// Rows whose products are taken block by block, as the file has them.
struct BlockRows {
  WeightType type = WeightType::kQ8_0;
  int64_t first_row = 0;
  int64_t count = 0;
  std::vector<std::byte> bytes;
};

// Row-major, widened to fp32.
struct ReferenceMatrix final : PackedMatrix {
  Buffer values;
  PackSpec spec;
  bool rounds = false;            // its products are of bf16 with bf16
  bool fp8_rows = false;          // its products are with rows rounded to fp8
  std::vector<BlockRows> blocks;  // of IntGroups or FourBitGroups
  View<const float> view() const {
    return View<const float>(values.As<float>(), rows, cols);
  }
};

const ReferenceMatrix& Own(const PackedMatrix* matrix) {
  return *static_cast<const ReferenceMatrix*>(matrix);
}

// (layer, block, key or value, kv head, slot, d), fp32.
struct ReferenceKv final : KvStorage {
  Buffer values;
  KvSpec spec;

  int64_t HeadSize() const { return int64_t{kBlockSlots} * spec.head_dim; }
  int64_t BlockSize() const { return 2 * spec.kv_heads * HeadSize(); }
  int64_t Offset(int32_t layer, int64_t block, int32_t kv_head,
                 int64_t slot) const {
    return (int64_t{layer} * spec.block_count + block) * BlockSize() +
           kv_head * HeadSize() + slot * spec.head_dim;
  }
  float* Key(int32_t layer, int64_t block, int32_t kv_head, int64_t slot) {
    return values.As<float>() + Offset(layer, block, kv_head, slot);
  }
  float* Value(int32_t layer, int64_t block, int32_t kv_head, int64_t slot) {
    return Key(layer, block, kv_head, slot) + spec.kv_heads * HeadSize();
  }
};

ReferenceKv& Own(KvStorage* kv) { return *static_cast<ReferenceKv*>(kv); }
ReferenceKv& Own(const KvStorage* kv) {
  return *const_cast<ReferenceKv*>(static_cast<const ReferenceKv*>(kv));
}

int64_t RowsOf(std::span<const RawMatrix> parts) {
  int64_t rows = 0;
  for (const RawMatrix& part : parts) rows += part.rows;
  return rows;
}

// One token's keys or values as a matrix of positions by d.
std::vector<float> Gather(ReferenceKv& kv, const AttendArgs& args,
                          const AttentionRow& row, int32_t kv_head,
                          bool values) {
  const int64_t positions = int64_t{row.first_position} + row.token_count;
  std::vector<float> rows(positions * args.head_dim);
  for (int64_t p = 0; p < positions; ++p) {
    const BlockId block = row.blocks[p / kBlockSlots];
    const int64_t slot = p % kBlockSlots;
    const float* const source = values
                                    ? kv.Value(args.layer, block, kv_head, slot)
                                    : kv.Key(args.layer, block, kv_head, slot);
    std::copy_n(source, args.head_dim, rows.data() + p * args.head_dim);
  }
  return rows;
}

template <typename T>
std::span<T> Row(const View<T>& view, int64_t r) {
  return std::span<T>(view.row(r), static_cast<size_t>(view.cols));
}

bool IsSegmented(PackKind kind) {
  return kind == PackKind::kHeadSegments || kind == PackKind::kGroupSegments;
}

// Rows whose products are taken block by block. `x` and `groups` are the same
// activations, the latter rounded.
void MultiplyBlocks(std::span<const float> x,
                    std::span<const ActivationGroup> groups,
                    const ReferenceMatrix& w, const BlockRows& rows,
                    std::span<float> y) {
  const bool segmented = IsSegmented(w.spec.kind);
  const bool four_bit = quant::FourBitTable(rows.type) != nullptr;
  std::array<int64_t, kSegments + 1> borders = {0, w.cols};
  if (segmented) {
    borders = OwnedBorders(
        w.spec.owned, w.cols,
        std::lcm(w.spec.unit, four_bit ? kFourBitBlock : kGroupElements));
  }
  const int segments = segmented ? kSegments : 1;
  const int64_t row_bytes = RowBytes(rows.type, w.cols);
  for (int64_t r = 0; r < rows.count; ++r) {
    const std::byte* const row = rows.bytes.data() + r * row_bytes;
    y[static_cast<size_t>(rows.first_row + r)] =
        four_bit ? quant::ReferenceFourBitProduct(rows.type, row, x.data(),
                                                  borders.data(), segments)
                 : quant::ReferenceProduct(rows.type, row, groups.data(),
                                           borders.data(), segments);
  }
}

// A row as its codes say it.
std::vector<float> RoundToFp8(std::span<const float> x) {
  float most = 0;
  for (const float value : x) most = std::max(most, std::fabs(value));
  const float scale = Fp8Scale(most);
  std::vector<float> rounded;
  for (const float value : x) {
    rounded.push_back(ToFloat(ToFp8(value * (1.0f / scale))) * scale);
  }
  return rounded;
}

// y = MatMul(x, w), in the arithmetic of the matrix.
void Multiply(std::span<const float> x, const ReferenceMatrix& w,
              std::span<float> y) {
  std::vector<float> rounded;
  if (w.fp8_rows) x = rounded = RoundToFp8(x);
  int64_t block_rows = 0;
  for (const BlockRows& rows : w.blocks) block_rows += rows.count;
  if (block_rows < w.rows) {
    if (IsSegmented(w.spec.kind)) {
      (w.rounds ? reference::MatMulSegmentedBf16 : reference::MatMulSegmented)(
          x, w.view(), OwnedBorders(w.spec.owned, w.cols, w.spec.unit), y);
    } else {
      (w.rounds ? reference::MatMulBf16 : reference::MatMul)(x, w.view(), y);
    }
  }
  if (w.blocks.empty()) return;
  std::vector<ActivationGroup> groups(
      static_cast<size_t>(w.cols / kGroupElements));
  QuantizeActivations(x, groups.data());
  for (const BlockRows& rows : w.blocks) MultiplyBlocks(x, groups, w, rows, y);
}

float RoundTo(DType dtype, float value) {
  switch (dtype) {
    case DType::kFp32:
      return value;
    case DType::kBf16:
      return ToFloat(ToBf16(value));
    case DType::kFp16:
      return ToFloat(ToFp16(value));
    case DType::kFp8:
      return ToFloat(ToFp8(value));
  }
  return value;
}

class ReferenceBackend final : public Backend {
 public:
  explicit ReferenceBackend(const NumericsOptions& numerics)
      : numerics_(numerics) {}

  std::string NumericsClass(WeightTypes weights) const override {
    return StrCat("reference/w:", Name(weights),
                  "/a:", Name(numerics_.activations),
                  "/kv:", Name(numerics_.kv), "/", NumericsVersion(weights));
  }

  size_t PackedBytes(std::span<const RawMatrix> parts,
                     const PackSpec& spec) const override {
    return Buffer::AllocatedBytes(RowsOf(parts) * parts[0].cols *
                                  sizeof(float));
  }
  size_t KvBytes(const KvSpec& spec) const override {
    return Buffer::AllocatedBytes(size_t{2} * spec.layers * spec.block_count *
                                  spec.kv_heads * kBlockSlots * spec.head_dim *
                                  sizeof(float));
  }
  // Small vectors only, made and dropped per row.
  size_t ScratchBytes(const ScratchSpec&) const override { return 0; }
  absl::Status ReserveScratch(const ScratchSpec&) override {
    return absl::OkStatus();
  }
  size_t scratch_bytes() const override { return 0; }
  bool CanEmbedFromHead() const override { return true; }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
      std::span<const RawMatrix> parts, const PackSpec& spec) override;
  absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(
      const KvSpec& spec) override;

  absl::Status Embed(const EmbedArgs& args) override;
  absl::Status NormQkvRopeStore(const NormQkvRopeStoreArgs& args) override;
  absl::Status Attend(const AttendArgs& args) override;
  absl::Status ProjectAdd(const ProjectAddArgs& args) override;
  absl::Status NormGateUpSilu(const NormGateUpSiluArgs& args) override;
  absl::Status DownAdd(const DownAddArgs& args) override;
  absl::Status NormHead(const NormHeadArgs& args) override;
  absl::Status Sample(const SampleArgs& args) override;
  absl::Status CopyBlocks(const CopyBlocksArgs& args) override;

 private:
  void KeepBlocks(std::span<const RawMatrix> parts,
                  ReferenceMatrix& matrix) const;

  const NumericsOptions numerics_;
};

// Keeps the rows whose products are taken block by block as they are. Parts of
// several types are told apart where products of integers may be.
void ReferenceBackend::KeepBlocks(std::span<const RawMatrix> parts,
                                  ReferenceMatrix& matrix) const {
  if (matrix.spec.kind == PackKind::kEmbedding) return;
  const bool int8 = numerics_.activations == ActivationType::kInt8;
  for (const RawMatrix& part : parts) {
    const bool apart = int8 && matrix.spec.kind == PackKind::kQkv;
    if (!apart && part.type != parts[0].type) return;
  }
  int64_t first_row = 0;
  for (const RawMatrix& part : parts) {
    if (quant::FourBitTable(part.type) != nullptr ||
        (int8 && quant::Int8FormatOf(part.type))) {
      BlockRows& rows = matrix.blocks.emplace_back();
      rows.type = part.type;
      rows.first_row = first_row;
      rows.count = part.rows;
      for (int64_t r = 0; r < part.rows; ++r) {
        const std::byte* const row = part.row(r);
        rows.bytes.insert(rows.bytes.end(), row, row + part.row_bytes());
      }
    }
    first_row += part.rows;
  }
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> ReferenceBackend::Pack(
    std::span<const RawMatrix> parts, const PackSpec& spec) {
  CARAVAN_RETURN_IF_ERROR(Check(parts, spec));
  auto matrix = std::make_unique<ReferenceMatrix>();
  matrix->spec = spec;
  matrix->rows = RowsOf(parts);
  matrix->cols = parts[0].cols;
  CARAVAN_ASSIGN_OR_RETURN(
      matrix->values,
      Buffer::Allocate(matrix->rows * matrix->cols * sizeof(float)));
  matrix->bytes = PackedBytes(parts, spec);
  matrix->data_bytes = matrix->values.size();
  const bool fp8 = numerics_.activations == ActivationType::kFp8;
  matrix->rounds = fp8 || numerics_.activations == ActivationType::kBf16;
  matrix->fp8_rows = fp8;
  for (const RawMatrix& part : parts) {
    matrix->rounds = matrix->rounds && part.type == WeightType::kBf16;
    matrix->fp8_rows = matrix->fp8_rows && part.type == WeightType::kFp8;
  }
  KeepBlocks(parts, *matrix);
  float* target = matrix->values.As<float>();
  for (const RawMatrix& part : parts) {
    for (int64_t row = 0; row < part.rows; ++row, target += part.cols) {
      DequantizeRow(part, row, target);
    }
  }
  return matrix;
}

absl::StatusOr<std::unique_ptr<KvStorage>> ReferenceBackend::AllocateKv(
    const KvSpec& spec) {
  CARAVAN_RETURN_IF_ERROR(Check(spec));
  auto kv = std::make_unique<ReferenceKv>();
  kv->spec = spec;
  kv->layers = spec.layers;
  kv->block_count = spec.block_count;
  kv->bytes = KvBytes(spec);
  CARAVAN_ASSIGN_OR_RETURN(kv->values, Buffer::Allocate(kv->bytes));
  return kv;
}

absl::Status ReferenceBackend::Embed(const EmbedArgs& args) {
  const View<const float> table = Own(args.table).view();
  for (int64_t t = 0; t < args.x.rows; ++t) {
    std::copy_n(table.row(args.ids[t]), table.cols, args.x.row(t));
  }
  return absl::OkStatus();
}

absl::Status ReferenceBackend::NormQkvRopeStore(
    const NormQkvRopeStoreArgs& args) {
  const int64_t qkv_rows = args.qkv->rows;
  ReferenceKv& kv = Own(args.kv);
  const size_t d = args.head_dim;
  std::vector<float> normed(args.x.cols);
  std::vector<float> out(qkv_rows);
  for (int64_t t = 0; t < args.x.rows; ++t) {
    reference::RmsNorm(Row(args.x, t), args.norm, args.epsilon, normed);
    Multiply(normed, Own(args.qkv), out);
    reference::AddBias(args.bias, out);
    for (int32_t head = 0; head < args.heads + args.kv_heads; ++head) {
      reference::Rope(Row(args.cos, t), Row(args.sin, t),
                      std::span(out).subspan(head * d, d));
    }
    std::copy_n(out.data(), args.heads * d, args.q.row(t));
    if (args.slots[t] < 0) continue;
    const int64_t block = args.slots[t] / kBlockSlots;
    const int64_t slot = args.slots[t] % kBlockSlots;
    for (int32_t g = 0; g < args.kv_heads; ++g) {
      const float* const key = out.data() + (args.heads + g) * d;
      const float* const value = key + args.kv_heads * d;
      const auto round = [this](float x) { return RoundTo(numerics_.kv, x); };
      std::transform(key, key + d, kv.Key(args.layer, block, g, slot), round);
      std::transform(value, value + d, kv.Value(args.layer, block, g, slot),
                     round);
    }
  }
  return absl::OkStatus();
}

absl::Status ReferenceBackend::Attend(const AttendArgs& args) {
  const int32_t group = args.heads / args.kv_heads;
  const size_t d = args.head_dim;
  for (const AttentionRow& row : args.rows) {
    for (int32_t head = 0; head < args.heads; ++head) {
      ReferenceKv& kv = Own(args.kv);
      const std::vector<float> k =
          Gather(kv, args, row, head / group, /*values=*/false);
      const std::vector<float> v =
          Gather(kv, args, row, head / group, /*values=*/true);
      for (int32_t i = 0; i < row.token_count; ++i) {
        const int64_t t = row.first_token + i;
        const int64_t seen = int64_t{row.first_position} + i + 1;
        reference::Attention(Row(args.q, t).subspan(head * d, d),
                             View<const float>(k.data(), seen, args.head_dim),
                             View<const float>(v.data(), seen, args.head_dim),
                             Row(args.out, t).subspan(head * d, d));
      }
    }
  }
  return absl::OkStatus();
}

// x[t] += MatMul(in[t], w) + bias.
void AddSegmented(const View<const float>& in, const PackedMatrix* w,
                  std::span<const float> bias, const View<float>& x) {
  std::vector<float> out(x.cols);
  for (int64_t t = 0; t < x.rows; ++t) {
    Multiply(Row(in, t), Own(w), out);
    reference::AddBias(bias, out);
    for (int64_t i = 0; i < x.cols; ++i) x.row(t)[i] += out[i];
  }
}

absl::Status ReferenceBackend::ProjectAdd(const ProjectAddArgs& args) {
  AddSegmented(args.a, args.w, args.bias, args.x);
  return absl::OkStatus();
}

absl::Status ReferenceBackend::NormGateUpSilu(const NormGateUpSiluArgs& args) {
  const size_t width = args.out.cols;
  std::vector<float> normed(args.x.cols);
  std::vector<float> both(2 * width);
  for (int64_t t = 0; t < args.x.rows; ++t) {
    reference::RmsNorm(Row(args.x, t), args.norm, args.epsilon, normed);
    Multiply(normed, Own(args.gate_up), both);
    const std::span<float> gate = std::span(both).first(width);
    const std::span<float> up = std::span(both).last(width);
    reference::AddBias(args.gate_bias, gate);
    reference::AddBias(args.up_bias, up);
    reference::SiluMultiply(up, gate);
    std::copy(gate.begin(), gate.end(), args.out.row(t));
  }
  return absl::OkStatus();
}

absl::Status ReferenceBackend::DownAdd(const DownAddArgs& args) {
  AddSegmented(args.h, args.w, args.bias, args.x);
  return absl::OkStatus();
}

absl::Status ReferenceBackend::NormHead(const NormHeadArgs& args) {
  std::vector<float> normed(args.x.cols);
  for (size_t i = 0; i < args.tokens.size(); ++i) {
    reference::RmsNorm(Row(args.x, args.tokens[i]), args.norm, args.epsilon,
                       normed);
    Multiply(normed, Own(args.head), Row(args.logits, static_cast<int64_t>(i)));
  }
  return absl::OkStatus();
}

absl::Status ReferenceBackend::Sample(const SampleArgs& args) {
  for (size_t i = 0; i < args.scores.size(); ++i) {
    const ScoreRow& row = args.scores[i];
    args.scored[i] = ScoreToken(Row(args.logits, row.logits_row), row.token_id,
                                row.candidate_count);
  }
  for (size_t i = 0; i < args.samples.size(); ++i) {
    const SampleRow& row = args.samples[i];
    args.sampled[i] = SampleToken(Row(args.logits, row.logits_row), row);
  }
  return absl::OkStatus();
}

absl::Status ReferenceBackend::CopyBlocks(const CopyBlocksArgs& args) {
  ReferenceKv& kv = Own(args.kv);
  for (const BlockCopy& copy : args.copies) {
    if (copy.source == copy.target) continue;
    for (int32_t layer = 0; layer < kv.spec.layers; ++layer) {
      std::copy_n(kv.Key(layer, copy.source, 0, 0), kv.BlockSize(),
                  kv.Key(layer, copy.target, 0, 0));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeReferenceBackend(
    const NumericsOptions& options) {
  return std::make_unique<ReferenceBackend>(options);
}

}  // namespace caravan::worker
