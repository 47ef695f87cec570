#include "worker/ops/cpu/cpu_backend.h"

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/ops/check.h"
#include "worker/ops/cpu/attention.h"
#include "worker/ops/cpu/kernels.h"
#include "worker/ops/cpu/packed_matrix.h"
#include "worker/ops/cpu/sampler.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/ops/numerics.h"
#include "worker/quant/four_bit_product.h"
#include "worker/quant/int8_activations.h"
#include "worker/quant/int8_panel.h"
#include "worker/tensor/buffer.h"
#include "worker/tensor/buffer_arena.h"

namespace caravan::worker {
namespace {

using cpu::Attention;
using cpu::CpuKv;
using cpu::CpuMatrix;
using cpu::Epilogue;
using cpu::KernelTable;
using cpu::kLanes;
using cpu::kPanelRows;
using cpu::PanelArgs;
using cpu::Sampler;
using cpu::ThreadTeam;
using cpu::WorkShares;
using quant::Int8Table;

// Up to this many rows every member normalizes all for itself, which is faster
// than to share and to wait for each other.
constexpr int64_t kRedundantRows = 2;

const KernelTable* KernelsFor(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx512Bf16:
      return cpu::Avx512Bf16Kernels();
    case CpuIsa::kAvx512:
      return cpu::Avx512Kernels();
    case CpuIsa::kAvx2:
      return cpu::Avx2Kernels();
    case CpuIsa::kPortable:
      return cpu::PortableKernels();
    case CpuIsa::kAuto:
      break;
  }
  return KernelsFor(AvailableCpuIsas().front());
}

// The best kernels of integer products that come with an instruction set.
const Int8Table* Int8For(CpuIsa isa) {
  if (isa == CpuIsa::kPortable) return quant::PortableInt8();
  if (isa != CpuIsa::kAvx2 && quant::Avx512VnniInt8() != nullptr) {
    return quant::Avx512VnniInt8();
  }
  if (quant::Avx2Int8() != nullptr) return quant::Avx2Int8();
  return quant::PortableInt8();
}

// Memory of a backend that grows to what the largest step needs.
class Scratch {
 public:
  absl::Status Reserve(size_t floats) {
    if (floats * sizeof(float) <= buffer_.size()) return absl::OkStatus();
    buffer_ = Buffer();  // first return the old memory
    CARAVAN_ASSIGN_OR_RETURN(buffer_, Buffer::Allocate(floats * sizeof(float)));
    return absl::OkStatus();
  }
  float* data() { return buffer_.As<float>(); }
  uint32_t* words() { return buffer_.As<uint32_t>(); }
  static size_t Bytes(size_t floats) {
    return Buffer::AllocatedBytes(floats * sizeof(float));
  }
  size_t bytes() const { return Buffer::AllocatedBytes(buffer_.size()); }

 private:
  Buffer buffer_;
};

class CpuBackend final : public Backend {
 public:
  CpuBackend(const CpuOptions& options, const KernelTable& kernels,
             const Int8Table& int8, std::unique_ptr<ThreadTeam> team)
      : numerics_(options.numerics),
        kernels_(kernels),
        int8_(int8),
        team_(std::move(team)),
        attention_(kernels_, *team_),
        sampler_(kernels_, *team_) {}

  std::string NumericsClass(WeightTypes weights) const override {
    return StrCat("cpu-", ProcessorName(), "/w:", Name(weights),
                  "/a:", Name(numerics_.activations),
                  "/kv:", Name(numerics_.kv), "/", NumericsVersion(weights));
  }

  size_t PackedBytes(std::span<const RawMatrix> parts,
                     const PackSpec& spec) const override {
    return CpuMatrix::BytesOf(
        CpuMatrix::LayoutsOf(parts, spec, numerics_.activations));
  }
  size_t KvBytes(const KvSpec& spec) const override {
    return CpuKv::Bytes(spec, numerics_.kv);
  }
  // Normalized rows, the q, k, v of a step, and rounded rows.
  size_t ScratchBytes(const ScratchSpec& spec) const override {
    return Scratch::Bytes(NormalizedFloats(spec.max_tokens, spec.hidden)) +
           Scratch::Bytes(QkvFloats(spec)) + Scratch::Bytes(RoundedWords(spec));
  }
  absl::Status ReserveScratch(const ScratchSpec& spec) override {
    CARAVAN_RETURN_IF_ERROR(
        normalized_.Reserve(NormalizedFloats(spec.max_tokens, spec.hidden)));
    CARAVAN_RETURN_IF_ERROR(qkv_.Reserve(QkvFloats(spec)));
    return rounded_.Reserve(RoundedWords(spec));
  }
  size_t scratch_bytes() const override {
    return normalized_.bytes() + qkv_.bytes() + rounded_.bytes();
  }

  int32_t synchronizations() const { return team_->rounds(); }

  bool CanEmbedFromHead() const override { return true; }

  absl::Status ReservePacked(std::span<const MatrixShape> matrices) override {
    size_t bytes = 0;
    for (const MatrixShape& matrix : matrices) {
      bytes += PackedBytes(matrix.parts, matrix.spec);
    }
    return weights_.Reserve(bytes);
  }
  absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
      std::span<const RawMatrix> parts, const PackSpec& spec) override {
    CARAVAN_RETURN_IF_ERROR(Check(parts, spec));
    return CpuMatrix::Pack(parts, spec, numerics_.activations, weights_,
                           *team_);
  }
  absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(
      const KvSpec& spec) override {
    CARAVAN_RETURN_IF_ERROR(Check(spec));
    return CpuKv::Create(spec, numerics_.kv);
  }

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
  // A product of packed weights with rows of activations, and what follows.
  struct MatMul {
    const CpuMatrix* matrix = nullptr;
    View<const float> x = {};
    const uint32_t* rounded = nullptr;  // (x.rows, words), where rounded
    Epilogue epilogue = Epilogue::kStore;
    const float* bias = nullptr;   // null: none
    const float* bias2 = nullptr;  // null: none
    View<float> out = {};
  };
  // Rows to normalize, into memory of one backend.
  struct Norm {
    View<const float> x;
    const int32_t* rows = nullptr;  // null: all in order
    int64_t count = 0;
    std::span<const float> weight;
    float epsilon = 0;
    const float* x_row(int64_t i) const {
      return x.row(rows == nullptr ? i : rows[i]);
    }
  };

  // fp32 kernels are named by the instructions that they use.
  const char* ProcessorName() const {
    switch (numerics_.activations) {
      case ActivationType::kFp32:
        return kernels_.fp32_name;
      case ActivationType::kBf16:
        return kernels_.name;
      case ActivationType::kInt8:
        return int8_.name;
      case ActivationType::kFp8:  // refused by MakeCpuBackend
        break;
    }
    return kernels_.name;
  }
  // Whether rows are rounded before they meet (some of) this matrix.
  bool Rounds(const CpuMatrix& matrix) const {
    return matrix.has_int8() ||
           (numerics_.activations == ActivationType::kBf16 && matrix.is_bf16());
  }
  // Rows of scratch when each member may have rows of its own.
  int64_t RowCopies(int64_t rows) const {
    const int64_t copies = rows <= kRedundantRows ? team_->size() : 1;
    return std::max(rows * copies, kRedundantRows * team_->size());
  }
  size_t RoundedWords(const ScratchSpec& spec) const {
    if (numerics_.activations == ActivationType::kFp32) return 0;
    return static_cast<size_t>(RowCopies(spec.max_tokens)) *
           static_cast<size_t>((spec.widest + 1) / 2 + kSegments);
  }
  static size_t QkvFloats(const ScratchSpec& spec) {
    return static_cast<size_t>(spec.max_tokens * spec.qkv_rows);
  }
  size_t NormalizedFloats(int64_t rows, int64_t dim) const {
    return static_cast<size_t>(RowCopies(rows)) * static_cast<size_t>(dim);
  }

  // Sequence of calls: the caller's Prepare..., then in each member
  // Normalize and RunMatMul.
  absl::Status PrepareNorm(const Norm& norm);
  absl::Status PrepareMatMul(const MatMul& mat_mul, int64_t rows);
  // Remembers what follows the product before.
  void LearnOrder(const CpuMatrix& matrix);
  // Calls make(i) for the member's rows of `count`: all where they are few,
  // else its share. Gives the index of row 0 among rows of scratch.
  template <typename Make>
  int64_t MakeRows(int member, int64_t count, const Make& make);
  // Rounds a row to groups of int8, or to pairs of bf16 as the matrix's
  // segments have them.
  void RoundRow(const CpuMatrix& matrix, const float* row, uint32_t* words);
  // Sets the rows of a product: normalized ones, once all are there.
  void Normalize(int member, const Norm& norm, MatMul& mat_mul);
  // Sets the rounded rows of a product where it wants them.
  void Round(int member, MatMul& mat_mul);
  void RunMatMul(int member, const MatMul& mat_mul);
  void RunPanel(const MatMul& mat_mul, int64_t panel,
                std::span<const std::byte> next);
  void RunInt8Panel(quant::Int8Format format, const PanelArgs& args);
  // Norm, then the product of its rows; `tail` follows on every member after
  // a barrier where it is given.
  template <typename Tail>
  absl::Status NormMatMul(const Norm& norm, MatMul mat_mul, const Tail* tail);
  void StoreHeads(int member, const NormQkvRopeStoreArgs& args);
  void StoreHead(const NormQkvRopeStoreArgs& args, int64_t token, int64_t head);

  const NumericsOptions numerics_;
  const KernelTable& kernels_;
  const Int8Table& int8_;
  const std::unique_ptr<ThreadTeam> team_;
  Attention attention_;
  Sampler sampler_;
  // Of a matrix, by its address: each member's first panel of the one whose
  // product came next the last time. Hints: neither is ever read through them.
  using Panels = std::vector<std::span<const std::byte>>;
  absl::flat_hash_map<const void*, Panels> next_panels_;
  const void* last_matrix_ = nullptr;
  BufferArena weights_;
  Scratch normalized_;
  Scratch qkv_;
  Scratch rounded_;
  WorkShares norm_shares_;
  WorkShares panel_shares_;
};

const float* BiasOf(std::span<const float> bias) {
  return bias.empty() ? nullptr : bias.data();
}

const CpuMatrix& Cpu(const PackedMatrix* matrix) {
  return static_cast<const CpuMatrix&>(*matrix);
}

absl::Status CpuBackend::Embed(const EmbedArgs& args) {
  const CpuMatrix& table = Cpu(args.table);
  for (size_t t = 0; t < args.ids.size(); ++t) {
    table.WidenRow(args.ids[t], args.x.row(static_cast<int64_t>(t)));
  }
  return absl::OkStatus();
}

absl::Status CpuBackend::PrepareNorm(const Norm& norm) {
  return normalized_.Reserve(NormalizedFloats(norm.count, norm.x.cols));
}

absl::Status CpuBackend::PrepareMatMul(const MatMul& mat_mul, int64_t rows) {
  LearnOrder(*mat_mul.matrix);
  panel_shares_.Reset(mat_mul.matrix->panel_count(), team_->size());
  norm_shares_.Reset(rows, team_->size());
  if (!Rounds(*mat_mul.matrix)) return absl::OkStatus();
  return rounded_.Reserve(
      static_cast<size_t>(RowCopies(rows) * mat_mul.matrix->rounded_words()));
}

template <typename Make>
int64_t CpuBackend::MakeRows(int member, int64_t count, const Make& make) {
  if (count <= kRedundantRows) {
    const int64_t first = member * count;
    for (int64_t i = 0; i < count; ++i) make(i, first + i);
    return first;
  }
  for (int64_t i; (i = norm_shares_.Next(member)) >= 0;) make(i, i);
  team_->Barrier(member);
  return 0;
}

void CpuBackend::RoundRow(const CpuMatrix& matrix, const float* row,
                          uint32_t* words) {
  if (matrix.has_int8()) {
    int8_.quantize(row, matrix.cols / kGroupElements, words);
    return;
  }
  const CpuMatrix::Layout& layout = matrix.pieces()[0].layout;
  for (int s = 0; s < layout.segments; ++s) {
    const int64_t begin = layout.borders[s];
    const int64_t count = layout.borders[s + 1] - begin;
    if (count % 2 != 0) words[count / 2] = 0;
    kernels_.round_bf16(row + begin, count, reinterpret_cast<uint16_t*>(words));
    words += (count + 1) / 2;
  }
}

void CpuBackend::Normalize(int member, const Norm& norm, MatMul& mat_mul) {
  const int64_t dim = norm.x.cols;
  const CpuMatrix& matrix = *mat_mul.matrix;
  const bool rounds = Rounds(matrix);
  const int64_t words = rounds ? matrix.rounded_words() : 0;
  float* const rows = normalized_.data();
  uint32_t* const rounded = rounded_.words();
  const int64_t first =
      MakeRows(member, norm.count, [&](int64_t i, int64_t place) {
        float* const row = rows + place * dim;
        kernels_.rms_norm(norm.x_row(i), norm.weight.data(), norm.epsilon, dim,
                          row);
        if (rounds) RoundRow(matrix, row, rounded + place * words);
      });
  mat_mul.x = View<const float>(rows + first * dim, norm.count, dim);
  if (rounds) mat_mul.rounded = rounded + first * words;
}

void CpuBackend::Round(int member, MatMul& mat_mul) {
  const CpuMatrix& matrix = *mat_mul.matrix;
  if (!Rounds(matrix)) return;
  const int64_t words = matrix.rounded_words();
  uint32_t* const rounded = rounded_.words();
  const int64_t first =
      MakeRows(member, mat_mul.x.rows, [&](int64_t i, int64_t place) {
        RoundRow(matrix, mat_mul.x.row(i), rounded + place * words);
      });
  mat_mul.rounded = rounded + first * words;
}

void CpuBackend::RunMatMul(int member, const MatMul& mat_mul) {
  const auto next = next_panels_.find(mat_mul.matrix);
  const std::span<const std::byte> of_next_matrix =
      next == next_panels_.end() ? std::span<const std::byte>()
                                 : next->second[static_cast<size_t>(member)];
  const int64_t end = WorkShares::FirstOf(
      member + 1, mat_mul.matrix->panel_count(), team_->size());
  for (int64_t i; (i = panel_shares_.Next(member)) >= 0;) {
    RunPanel(mat_mul, i,
             i + 1 < end ? mat_mul.matrix->PanelBytes(i + 1) : of_next_matrix);
  }
  team_->FetchWhileWaiting(member, of_next_matrix.data(),
                           of_next_matrix.size());
}

// Products come in the same order in every step.
void CpuBackend::LearnOrder(const CpuMatrix& matrix) {
  const void* const last = std::exchange(last_matrix_, &matrix);
  if (last == nullptr) return;
  Panels& panels = next_panels_[last];
  const int64_t count = matrix.panel_count();
  if (!panels.empty() && panels[0].data() == matrix.PanelBytes(0).data()) {
    return;
  }
  panels.clear();
  for (int member = 0; member < team_->size(); ++member) {
    panels.push_back(matrix.PanelBytes(std::min(
        count - 1, WorkShares::FirstOf(member, count, team_->size()))));
  }
}

// `panel` counts those of all pieces; `next` is what the member reads after it.
void CpuBackend::RunPanel(const MatMul& mat_mul, int64_t panel,
                          std::span<const std::byte> next) {
  const CpuMatrix::Piece* piece = mat_mul.matrix->pieces().data();
  for (; panel >= piece->layout.panel_count(); ++piece) {
    panel -= piece->layout.panel_count();
  }
  const CpuMatrix::Layout& layout = piece->layout;
  const bool gate_up = mat_mul.epilogue == Epilogue::kGateUp;
  const int64_t width = gate_up ? kPanelRows / 2 : kPanelRows;
  const int64_t end =
      gate_up ? mat_mul.out.cols : layout.first_row + layout.rows;
  const int64_t first = layout.first_row + panel * width;
  PanelArgs args = {
      .data = piece->panel(panel),
      .vectors = layout.panel_vectors(panel),
      .valid = std::min(width, end - first),
      .borders = layout.borders.data(),
      .segments = layout.segments,
      .x = mat_mul.x.data,
      .x_stride = mat_mul.x.stride,
      .tokens = mat_mul.x.rows,
      .epilogue = mat_mul.epilogue,
      .bias = mat_mul.bias == nullptr ? nullptr : mat_mul.bias + first,
      .bias2 = mat_mul.bias2 == nullptr ? nullptr : mat_mul.bias2 + first,
      .out = mat_mul.out.data + first,
      .out_stride = mat_mul.out.stride,
      .next = next.data(),
      .next_bytes = static_cast<int64_t>(next.size())};
  if (mat_mul.rounded != nullptr) {
    args.x_pairs = mat_mul.rounded;
    args.x_pairs_stride = mat_mul.matrix->rounded_words();
  }
  if (layout.int8) return RunInt8Panel(*layout.int8, args);
  if (layout.four_bit()) {
    args.table = quant::FourBitTable(layout.type);
    return kernels_.panel_four_bit(args);
  }
  switch (*PlainDType(layout.type)) {
    case DType::kFp32:
      return kernels_.panel_fp32(args);
    case DType::kBf16:
      return numerics_.activations == ActivationType::kBf16
                 ? kernels_.panel_bf16_dot(args)
                 : kernels_.panel_bf16(args);
    case DType::kFp16:
      return kernels_.panel_fp16(args);
    case DType::kFp8:  // no plain weights
      return;
  }
}

// Products of a few tokens at a time, so that they stay in the nearest cache.
void CpuBackend::RunInt8Panel(quant::Int8Format format, const PanelArgs& args) {
  constexpr int64_t kMostTokens = 48;
  alignas(64) float products[kMostTokens * kPanelRows];
  const int64_t runs = (args.tokens + kMostTokens - 1) / kMostTokens;
  for (int64_t run = 0; run < runs; ++run) {
    const int64_t begin = run * args.tokens / runs;
    const int64_t end = (run + 1) * args.tokens / runs;
    int8_.panels[static_cast<size_t>(format)](
        {.data = args.data,
         .vectors = args.vectors,
         .borders = args.borders,
         .segments = args.segments,
         .x = args.x_pairs + begin * args.x_pairs_stride,
         .x_stride = args.x_pairs_stride * int64_t{sizeof(uint32_t)},
         .tokens = end - begin,
         .out = products,
         .out_stride = kPanelRows,
         .next = args.next,
         .next_bytes = run + 1 == runs ? args.next_bytes : 0});
    for (int64_t t = begin; t < end; ++t) {
      kernels_.finish(args, products + (t - begin) * kPanelRows,
                      args.out + t * args.out_stride);
    }
  }
}

template <typename Tail>
absl::Status CpuBackend::NormMatMul(const Norm& norm, MatMul mat_mul,
                                    const Tail* tail) {
  if (norm.count == 0) return absl::OkStatus();
  CARAVAN_RETURN_IF_ERROR(PrepareNorm(norm));
  CARAVAN_RETURN_IF_ERROR(PrepareMatMul(mat_mul, norm.count));
  team_->Run([&](int member) {
    MatMul own = mat_mul;
    Normalize(member, norm, own);
    RunMatMul(member, own);
    if (tail != nullptr) {
      team_->Barrier(member);
      (*tail)(member);
    }
  });
  return absl::OkStatus();
}

using NoTail = void (*)(int);

absl::Status CpuBackend::NormQkvRopeStore(const NormQkvRopeStoreArgs& args) {
  const int64_t tokens = args.x.rows;
  const int64_t columns = args.qkv->rows;
  CARAVAN_RETURN_IF_ERROR(
      qkv_.Reserve(static_cast<size_t>(tokens) * static_cast<size_t>(columns)));
  const Norm norm = {.x = args.x,
                     .count = tokens,
                     .weight = args.norm,
                     .epsilon = args.epsilon};
  const MatMul mat_mul = {.matrix = &Cpu(args.qkv),
                          .bias = BiasOf(args.bias),
                          .out = View<float>(qkv_.data(), tokens, columns)};
  const auto tail = [&](int member) { StoreHeads(member, args); };
  return NormMatMul(norm, mat_mul, &tail);
}

// The member's share of all heads of all tokens.
void CpuBackend::StoreHeads(int member, const NormQkvRopeStoreArgs& args) {
  const int64_t heads = args.heads + 2 * args.kv_heads;
  const int64_t total = args.x.rows * heads;
  const int64_t begin = member * total / team_->size();
  const int64_t end = (member + 1) * total / team_->size();
  for (int64_t i = begin; i < end; ++i) StoreHead(args, i / heads, i % heads);
}

// `head` counts query heads, then key heads, then value heads.
void CpuBackend::StoreHead(const NormQkvRopeStoreArgs& args, int64_t token,
                           int64_t head) {
  const int32_t d = args.head_dim;
  float* const source = qkv_.data() + token * args.qkv->rows + head * d;
  const float* const cos = args.cos.row(token);
  const float* const sin = args.sin.row(token);
  if (head < args.heads) {
    kernels_.rope(source, cos, sin, d, args.q.row(token) + head * d);
    return;
  }
  const int64_t place = args.slots[token];
  if (place < 0) return;
  CpuKv& kv = static_cast<CpuKv&>(*args.kv);
  const int32_t block = static_cast<int32_t>(place / kBlockSlots);
  const int64_t slot = place % kBlockSlots;
  const int32_t kv_head =
      static_cast<int32_t>((head - args.heads) % args.kv_heads);
  if (head - args.heads >= args.kv_heads) {
    kv.StoreValue(source, slot, kv.Values(args.layer, block, kv_head));
    return;
  }
  kernels_.rope(source, cos, sin, d, source);
  kv.StoreKey(source, slot, kv.Keys(args.layer, block, kv_head));
}

absl::Status CpuBackend::Attend(const AttendArgs& args) {
  if (args.q.rows > 0) attention_.Run(args);
  return absl::OkStatus();
}

absl::Status CpuBackend::ProjectAdd(const ProjectAddArgs& args) {
  if (args.a.rows == 0) return absl::OkStatus();
  const MatMul mat_mul = {.matrix = &Cpu(args.w),
                          .x = args.a,
                          .epilogue = Epilogue::kAdd,
                          .bias = BiasOf(args.bias),
                          .out = args.x};
  CARAVAN_RETURN_IF_ERROR(PrepareMatMul(mat_mul, args.a.rows));
  team_->Run([&](int member) {
    MatMul own = mat_mul;
    Round(member, own);
    RunMatMul(member, own);
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::NormGateUpSilu(const NormGateUpSiluArgs& args) {
  const Norm norm = {.x = args.x,
                     .count = args.x.rows,
                     .weight = args.norm,
                     .epsilon = args.epsilon};
  const MatMul mat_mul = {.matrix = &Cpu(args.gate_up),
                          .epilogue = Epilogue::kGateUp,
                          .bias = BiasOf(args.gate_bias),
                          .bias2 = BiasOf(args.up_bias),
                          .out = args.out};
  return NormMatMul<NoTail>(norm, mat_mul, nullptr);
}

absl::Status CpuBackend::DownAdd(const DownAddArgs& args) {
  return ProjectAdd({.a = args.h, .w = args.w, .bias = args.bias, .x = args.x});
}

absl::Status CpuBackend::NormHead(const NormHeadArgs& args) {
  const Norm norm = {.x = args.x,
                     .rows = args.tokens.data(),
                     .count = static_cast<int64_t>(args.tokens.size()),
                     .weight = args.norm,
                     .epsilon = args.epsilon};
  const MatMul mat_mul = {.matrix = &Cpu(args.head), .out = args.logits};
  return NormMatMul<NoTail>(norm, mat_mul, nullptr);
}

absl::Status CpuBackend::Sample(const SampleArgs& args) {
  sampler_.Run(args);
  return absl::OkStatus();
}

absl::Status CpuBackend::CopyBlocks(const CopyBlocksArgs& args) {
  CpuKv& kv = static_cast<CpuKv&>(*args.kv);
  for (const BlockCopy& copy : args.copies) kv.CopyBlock(copy);
  return absl::OkStatus();
}

}  // namespace

int32_t Synchronizations(const Backend& cpu_backend) {
  return static_cast<const CpuBackend&>(cpu_backend).synchronizations();
}

const char* Name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAuto:
      return "auto";
    case CpuIsa::kAvx512Bf16:
      return "avx512bf16";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kPortable:
      return "portable";
  }
  return "unknown";
}

std::vector<CpuIsa> AvailableCpuIsas() {
  std::vector<CpuIsa> isas;
  for (const CpuIsa isa : {CpuIsa::kAvx512Bf16, CpuIsa::kAvx512, CpuIsa::kAvx2,
                           CpuIsa::kPortable}) {
    if (KernelsFor(isa) != nullptr) isas.push_back(isa);
  }
  return isas;
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(
    const CpuOptions& options) {
  const KernelTable* const kernels = KernelsFor(options.isa);
  if (kernels == nullptr) {
    return UnsupportedError(StrCat("isa=", Name(options.isa)),
                            "this machine or build does not have it");
  }
  if (options.numerics.activations == ActivationType::kFp8) {
    return UnsupportedError("--activations=fp8",
                            "the cpu backend has fp32, bf16 and int8");
  }
  if (options.numerics.kv == DType::kFp8) {
    return UnsupportedError("--kv=fp8",
                            "the cpu backend has fp32, bf16 and fp16");
  }
  CARAVAN_ASSIGN_OR_RETURN(std::unique_ptr<ThreadTeam> team,
                           ThreadTeam::Create(options.threads, options.pin));
  return std::make_unique<CpuBackend>(options, *kernels, *Int8For(options.isa),
                                      std::move(team));
}

}  // namespace caravan::worker
