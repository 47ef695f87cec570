#include "worker/ops/cpu/cpu_backend.h"

#include <algorithm>
#include <string>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/ops/check.h"
#include "worker/ops/cpu/attention.h"
#include "worker/ops/cpu/kernels.h"
#include "worker/ops/cpu/packed_matrix.h"
#include "worker/ops/cpu/sampler.h"
#include "worker/ops/cpu/thread_team.h"
#include "worker/tensor/buffer.h"

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

// Up to this many rows every member normalizes all for itself, which is faster
// than to share and to wait for each other.
constexpr int64_t kRedundantRows = 2;

const KernelTable* KernelsFor(CpuIsa isa) {
  switch (isa) {
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
             std::unique_ptr<ThreadTeam> team)
      : kernels_(kernels),
        team_(std::move(team)),
        attention_(kernels_, *team_),
        sampler_(kernels_, *team_) {}

  std::string NumericsClass(DType weights) const override {
    return StrCat("cpu-", kernels_.name, "/w:", Name(weights),
                  "/a:fp32/kv:fp32/v1");
  }

  size_t PackedBytes(std::span<const RawMatrix> parts,
                     const PackSpec& spec) const override {
    return Buffer::AllocatedBytes(
        CpuMatrix::LayoutOf(parts, spec).total_bytes());
  }
  size_t KvBytes(const KvSpec& spec) const override {
    return CpuKv::Bytes(spec);
  }
  // Normalized rows, and the q, k, v of a step.
  size_t ScratchBytes(const ScratchSpec& spec) const override {
    return Scratch::Bytes(NormalizedFloats(spec.max_tokens, spec.hidden)) +
           Scratch::Bytes(QkvFloats(spec));
  }
  absl::Status ReserveScratch(const ScratchSpec& spec) override {
    CARAVAN_RETURN_IF_ERROR(
        normalized_.Reserve(NormalizedFloats(spec.max_tokens, spec.hidden)));
    return qkv_.Reserve(QkvFloats(spec));
  }
  size_t scratch_bytes() const override {
    return normalized_.bytes() + qkv_.bytes();
  }

  bool CanEmbedFromHead() const override { return true; }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
      std::span<const RawMatrix> parts, const PackSpec& spec) override {
    CARAVAN_RETURN_IF_ERROR(Check(parts, spec));
    return CpuMatrix::Pack(parts, spec, *team_);
  }
  absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(
      const KvSpec& spec) override {
    CARAVAN_RETURN_IF_ERROR(Check(spec));
    return CpuKv::Create(spec);
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

  static size_t QkvFloats(const ScratchSpec& spec) {
    return static_cast<size_t>(spec.max_tokens * spec.qkv_rows);
  }
  size_t NormalizedFloats(int64_t rows, int64_t dim) const {
    const int64_t copies = rows <= kRedundantRows ? team_->size() : 1;
    return static_cast<size_t>(
               std::max(rows * copies, kRedundantRows * team_->size())) *
           static_cast<size_t>(dim);
  }

  // Sequence of calls: the caller's Prepare..., then in each member
  // Normalize and RunMatMul.
  absl::Status PrepareNorm(const Norm& norm);
  void PrepareMatMul(const MatMul& mat_mul);
  // The normalized rows, once all are there.
  View<const float> Normalize(int member, const Norm& norm);
  void RunMatMul(int member, const MatMul& mat_mul);
  void RunPanel(const MatMul& mat_mul, int64_t panel);
  // Norm, then the product of its rows; `tail` follows on every member after
  // a barrier where it is given.
  template <typename Tail>
  absl::Status NormMatMul(const Norm& norm, MatMul mat_mul, const Tail* tail);
  void StoreHeads(int member, const NormQkvRopeStoreArgs& args);
  void StoreHead(const NormQkvRopeStoreArgs& args, int64_t token, int64_t head);

  const KernelTable& kernels_;
  const std::unique_ptr<ThreadTeam> team_;
  Attention attention_;
  Sampler sampler_;
  Scratch normalized_;
  Scratch qkv_;
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
  norm_shares_.Reset(norm.count, team_->size());
  return normalized_.Reserve(NormalizedFloats(norm.count, norm.x.cols));
}

void CpuBackend::PrepareMatMul(const MatMul& mat_mul) {
  panel_shares_.Reset(mat_mul.matrix->layout().panel_count(), team_->size());
}

View<const float> CpuBackend::Normalize(int member, const Norm& norm) {
  const int64_t dim = norm.x.cols;
  const bool redundant = norm.count <= kRedundantRows;
  const int64_t first = redundant ? member * norm.count : 0;
  float* const out = normalized_.data() + first * dim;
  const auto one = [&](int64_t i) {
    kernels_.rms_norm(norm.x_row(i), norm.weight.data(), norm.epsilon, dim,
                      out + i * dim);
  };
  if (redundant) {
    for (int64_t i = 0; i < norm.count; ++i) one(i);
  } else {
    for (int64_t i; (i = norm_shares_.Next(member)) >= 0;) one(i);
    team_->Barrier();
  }
  return View<const float>(out, norm.count, dim);
}

void CpuBackend::RunMatMul(int member, const MatMul& mat_mul) {
  for (int64_t i; (i = panel_shares_.Next(member)) >= 0;) {
    RunPanel(mat_mul, i);
  }
}

void CpuBackend::RunPanel(const MatMul& mat_mul, int64_t panel) {
  const CpuMatrix::Layout& layout = mat_mul.matrix->layout();
  const int64_t width =
      mat_mul.epilogue == Epilogue::kGateUp ? kPanelRows / 2 : kPanelRows;
  const int64_t first = panel * width;
  const PanelArgs args = {
      .data = mat_mul.matrix->panel(panel),
      .vectors = layout.panel_vectors(panel),
      .valid = std::min(width, mat_mul.out.cols - first),
      .borders = layout.borders.data(),
      .segments = layout.segments,
      .x = mat_mul.x.data,
      .x_stride = mat_mul.x.stride,
      .tokens = mat_mul.x.rows,
      .epilogue = mat_mul.epilogue,
      .bias = mat_mul.bias == nullptr ? nullptr : mat_mul.bias + first,
      .bias2 = mat_mul.bias2 == nullptr ? nullptr : mat_mul.bias2 + first,
      .out = mat_mul.out.data + first,
      .out_stride = mat_mul.out.stride};
  switch (layout.dtype) {
    case DType::kFp32:
      return kernels_.panel_fp32(args);
    case DType::kBf16:
      return kernels_.panel_bf16(args);
    case DType::kFp16:
      return kernels_.panel_fp16(args);
  }
}

template <typename Tail>
absl::Status CpuBackend::NormMatMul(const Norm& norm, MatMul mat_mul,
                                    const Tail* tail) {
  if (norm.count == 0) return absl::OkStatus();
  CARAVAN_RETURN_IF_ERROR(PrepareNorm(norm));
  PrepareMatMul(mat_mul);
  team_->Run([&](int member) {
    MatMul own = mat_mul;
    own.x = Normalize(member, norm);
    RunMatMul(member, own);
    if (tail != nullptr) {
      team_->Barrier();
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
    float* const values = kv.Values(args.layer, block, kv_head);
    std::copy(source, source + d, values + slot * kv.value_stride());
    return;
  }
  kernels_.rope(source, cos, sin, d, source);
  float* const keys = kv.Keys(args.layer, block, kv_head);
  for (int64_t i = 0; i < d; ++i) keys[i * kBlockSlots + slot] = source[i];
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
  PrepareMatMul(mat_mul);
  team_->Run([&](int member) { RunMatMul(member, mat_mul); });
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

const char* Name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAuto:
      return "auto";
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
  for (const CpuIsa isa : {CpuIsa::kAvx512, CpuIsa::kAvx2, CpuIsa::kPortable}) {
    if (KernelsFor(isa) != nullptr) isas.push_back(isa);
  }
  return isas;
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(
    const CpuOptions& options) {
  const NumericsOptions& numerics = options.numerics;
  if (numerics.activations != DType::kFp32) {
    return UnsupportedError(StrCat("activations=", Name(numerics.activations)),
                            "the cpu backend computes with fp32 activations");
  }
  if (numerics.kv != DType::kFp32) {
    return UnsupportedError(StrCat("kv=", Name(numerics.kv)),
                            "the cpu backend keeps keys and values in fp32");
  }
  const KernelTable* const kernels = KernelsFor(options.isa);
  if (kernels == nullptr) {
    return UnsupportedError(StrCat("isa=", Name(options.isa)),
                            "this machine or build does not have it");
  }
  CARAVAN_ASSIGN_OR_RETURN(std::unique_ptr<ThreadTeam> team,
                           ThreadTeam::Create(options.threads, options.pin));
  return std::make_unique<CpuBackend>(options, *kernels, std::move(team));
}

}  // namespace caravan::worker
