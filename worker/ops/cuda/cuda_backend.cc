#include "worker/ops/cuda/cuda_backend.h"

#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/ops/check.h"
#include "worker/ops/cuda/device_attention.h"
#include "worker/ops/cuda/device_collective.h"
#include "worker/ops/cuda/device_products.h"
#include "worker/ops/cuda/device_sampler.h"
#include "worker/ops/cuda/geometry.h"
#include "worker/ops/cuda/library_check.h"
#include "worker/ops/cuda/recording_device.h"
#include "worker/ops/cuda/step_inputs.h"
#include "worker/ops/cuda/storage.h"
#include "worker/ops/cuda/wgmma_check.h"
#include "worker/ops/sample.h"

namespace caravan::worker::cuda {
namespace {

using Slot = StepInputsOnDevice::Slot;

constexpr PackPolicy kForLibrary = {.tensor_cores = true, .library = true};

struct DeviceArena final : Arena {
  DeviceBuffer buffer;
};

const CudaMatrix& Own(const PackedMatrix* matrix) {
  return *static_cast<const CudaMatrix*>(matrix);
}
CudaKv& Own(KvStorage* kv) { return *static_cast<CudaKv*>(kv); }
const CudaKv& Own(const KvStorage* kv) {
  return *static_cast<const CudaKv*>(kv);
}

size_t QkvBytes(int64_t tokens, int64_t rows) {
  return sizeof(float) * tokens * rows;
}

size_t SamplerBytes(const ScratchSpec& spec) {
  if (spec.logits_rows == 0) return 0;
  return DeviceBuffer::AllocatedBytes(
      DeviceSampler::ScratchBytes(spec.logits_rows, spec.vocabulary));
}

class CudaBackend final : public Backend {
 public:
  // From `wgmma_tokens` on products take wgmma.
  CudaBackend(std::unique_ptr<Device> device, const CudaOptions& options,
              int64_t wgmma_tokens)
      : options_(options),
        wgmma_tokens_(wgmma_tokens),
        device_(std::make_unique<RecordingDevice>(std::move(device))),
        inputs_(device_.get()),
        sampler_(device_.get()),
        products_(
            device_.get(), fast() ? ProductsBy::kLibrary : ProductsBy::kKernels,
            wgmma_tokens, options.numerics.activations == ActivationType::kFp8),
        attention_(device_.get(), split_keys()),
        collective_(device_.get(), options.ranks),
        qkv_(device_.get()) {}

  // For the fast profile, and checked shapes of the exact one.
  absl::Status OpenLibrary(const Clock& clock) {
    CARAVAN_ASSIGN_OR_RETURN(
        tuner_, GemmTuner::Create(
                    device_.get(), &clock,
                    {.file = options_.gemm_algorithms, .ordered = !fast()}));
    products_.UseLibrary(tuner_.get());
    return absl::OkStatus();
  }

  std::string NumericsClass(WeightTypes weights) const override {
    const bool wgmma = options_.tensor_cores == TensorCores::kWgmma;
    // Which algorithms multiply is decided by card, library and measurement.
    const std::string fast_name = !fast() ? ""
                                  : tuner_ == nullptr
                                      ? "-fast"
                                      : StrCat("-fast-", tuner_->Digest());
    return StrCat("cuda-", device_->architecture(), fast_name,
                  wgmma ? "-wgmma" : "", "/w:", Name(weights),
                  "/a:", Name(options_.numerics.activations),
                  "/kv:", Name(options_.numerics.kv), "/v1");
  }

  size_t PackedBytes(std::span<const RawMatrix> parts,
                     const PackSpec& spec) const override {
    return DeviceBuffer::AllocatedBytes(
        LayoutOf(parts, spec, policy()).bytes());
  }
  size_t KvBytes(const KvSpec& spec) const override {
    return CacheBytes(spec, options_.numerics.kv, fragment_cache());
  }
  size_t ScratchBytes(const ScratchSpec& spec) const override;
  absl::Status ReserveScratch(const ScratchSpec& spec) override;
  size_t scratch_bytes() const override {
    return products_.scratch_bytes() + qkv_.bytes() +
           attention_.scratch_bytes() + collective_.scratch_bytes() +
           sampler_.scratch_bytes();
  }
  absl::StatusOr<std::unique_ptr<Arena>> AllocateArena(size_t bytes) override;
  size_t ArenaBytes(size_t bytes) const override {
    return DeviceBuffer::AllocatedBytes(bytes);
  }
  absl::StatusOr<std::optional<size_t>> FreeBytes() const override {
    CARAVAN_ASSIGN_OR_RETURN(const size_t bytes, device_->FreeBytes());
    return std::optional<size_t>(bytes);
  }
  bool ArenasAreHostMemory() const override { return false; }
  bool CanEmbedFromHead() const override { return true; }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
      std::span<const RawMatrix> parts, const PackSpec& spec) override;
  absl::StatusOr<std::unique_ptr<KvStorage>> AllocateKv(
      const KvSpec& spec) override;
  absl::Status Keep(std::span<const float> vector) override {
    return inputs_.Keep(vector);
  }
  absl::Status BeginStep(const StepInputs& inputs) override;
  void EndStep() override {
    device_->Finish().IgnoreError();  // sticky
    inputs_.End();
  }

  absl::Status Embed(const EmbedArgs& args) override;
  absl::Status NormQkvRopeStore(const NormQkvRopeStoreArgs& args) override;
  absl::Status Attend(const AttendArgs& args) override;
  absl::Status ProjectAdd(const ProjectAddArgs& args) override {
    return AddProduct(args.a, args.w, args.bias, args.x);
  }
  absl::Status NormGateUpSilu(const NormGateUpSiluArgs& args) override;
  absl::Status DownAdd(const DownAddArgs& args) override {
    return AddProduct(args.h, args.w, args.bias, args.x);
  }
  absl::Status NormHead(const NormHeadArgs& args) override;
  absl::Status Sample(const SampleArgs& args) override;
  absl::Status CopyBlocks(const CopyBlocksArgs& args) override;

 private:
  absl::StatusOr<std::unique_ptr<CudaMatrix>> PackAs(
      std::span<const RawMatrix> parts, const PackSpec& spec,
      PackPolicy policy) {
    return PackMatrix(parts, spec, policy, options_.staging_bytes, staging_,
                      device_.get());
  }
  // Whether the exact profile would let the library multiply, if its bits are
  // equal: nothing but rows stored as they are, and the same memory.
  bool ChecksLibrary(std::span<const RawMatrix> parts,
                     const PackSpec& spec) const;
  // The matrix for the library where that has the bits of our kernels, else
  // for them.
  absl::StatusOr<std::unique_ptr<CudaMatrix>> PackChecked(
      std::span<const RawMatrix> parts, const PackSpec& spec);

  bool fast() const { return options_.profile == CudaProfile::kFast; }
  PackPolicy policy() const { return {tensor_cores(), fast()}; }
  bool tensor_cores() const {
    return options_.numerics.activations == ActivationType::kBf16 ||
           options_.numerics.activations == ActivationType::kFp8;
  }
  bool fragment_cache() const {
    return tensor_cores() && (options_.numerics.kv == DType::kBf16 ||
                              options_.numerics.kv == DType::kFp8);
  }
  int32_t split_keys() const {
    return tensor_cores() ? MmaAttendKernel<>::kSplitKeys : kAttentionSplitKeys;
  }

  absl::Status AddProduct(const View<const float>& in, const PackedMatrix* w,
                          std::span<const float> bias, const View<float>& x);
  // x += the products of all ranks' segments + bias.
  absl::Status AddRanks(const DeviceView& operand, int64_t tokens,
                        const CudaMatrix& w, const float* bias,
                        const DeviceView& x);
  // Finish of what all ranks have: the first one writes it.
  absl::Status FinishShared(const DeviceView& device, const View<float>& view) {
    return options_.rank == 0 ? inputs_.Finish(device, view) : absl::OkStatus();
  }

  const CudaOptions options_;
  const int64_t wgmma_tokens_;
  const std::unique_ptr<RecordingDevice> device_;
  StepInputsOnDevice inputs_;
  DeviceSampler sampler_;
  std::unique_ptr<GemmTuner> tuner_;
  DeviceProducts products_;
  // By rows and columns: up to how many tokens the library's bits are ours.
  std::map<std::pair<int64_t, int64_t>, int32_t> equal_tokens_;
  DeviceAttention attention_;
  DeviceCollective collective_;
  Scratch qkv_;
  int64_t reserved_tokens_ = 0;  // of a step
  DeviceBuffer staging_;         // of weights; dropped before the first step
};

size_t CudaBackend::ScratchBytes(const ScratchSpec& spec) const {
  return products_.ScratchBytes(spec) +
         DeviceBuffer::AllocatedBytes(
             QkvBytes(spec.max_tokens, spec.qkv_rows)) +
         DeviceAttention::ScratchBytes(spec) + collective_.ScratchBytes(spec) +
         SamplerBytes(spec);
}

absl::Status CudaBackend::ReserveScratch(const ScratchSpec& spec) {
  staging_ = DeviceBuffer();
  reserved_tokens_ = spec.max_tokens;
  CARAVAN_RETURN_IF_ERROR(products_.Reserve(spec));
  CARAVAN_RETURN_IF_ERROR(
      qkv_.Get(QkvBytes(spec.max_tokens, spec.qkv_rows)).status());
  CARAVAN_RETURN_IF_ERROR(attention_.Reserve(spec));
  CARAVAN_RETURN_IF_ERROR(collective_.Reserve(spec));
  if (spec.logits_rows == 0) return absl::OkStatus();
  return sampler_.Reserve(spec.logits_rows, spec.vocabulary);
}

absl::Status CudaBackend::BeginStep(const StepInputs& inputs) {
  EndStep();  // of a step that was given up
  const int64_t tokens = std::ssize(inputs.ids);
  const std::optional<int32_t> bucket = TokenBucket(tokens, reserved_tokens_);
  if (!options_.graphs || !bucket || !Decodes(inputs.rows) ||
      std::ssize(inputs.rows) != tokens) {
    return inputs_.Begin(inputs);
  }
  CARAVAN_ASSIGN_OR_RETURN(const int32_t splits,
                           inputs_.BeginPadded(inputs, *bucket, split_keys()));
  device_->Start({*bucket, splits});
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Arena>> CudaBackend::AllocateArena(
    size_t bytes) {
  auto arena = std::make_unique<DeviceArena>();
  CARAVAN_ASSIGN_OR_RETURN(arena->buffer,
                           DeviceBuffer::Allocate(device_.get(), bytes));
  arena->data = arena->buffer.As<std::byte>();
  arena->bytes = arena->buffer.bytes();
  return arena;
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> CudaBackend::Pack(
    std::span<const RawMatrix> parts, const PackSpec& spec) {
  CARAVAN_RETURN_IF_ERROR(Check(parts, spec));
  if (ChecksLibrary(parts, spec)) return PackChecked(parts, spec);
  CARAVAN_ASSIGN_OR_RETURN(std::unique_ptr<CudaMatrix> matrix,
                           PackAs(parts, spec, policy()));
  if (matrix->layout.partial && matrix->layout.fp8) {
    return UnsupportedError(StrCat("--ranks=", options_.ranks),
                            "a matrix of fp8 has a scale for all segments of a "
                            "row; use one rank");
  }
  products_.Note(*matrix, spec.kind);
  return matrix;
}

bool CudaBackend::ChecksLibrary(std::span<const RawMatrix> parts,
                                const PackSpec& spec) const {
  if (fast() || options_.library_check_tokens == 0 || tuner_ == nullptr ||
      (spec.kind != PackKind::kQkv && spec.kind != PackKind::kHead)) {
    return false;
  }
  const MatrixLayout layout = LayoutOf(parts, spec, kForLibrary);
  return layout.library &&
         layout.bytes() == LayoutOf(parts, spec, policy()).bytes();
}

absl::StatusOr<std::unique_ptr<CudaMatrix>> CudaBackend::PackChecked(
    std::span<const RawMatrix> parts, const PackSpec& spec) {
  const MatrixLayout layout = LayoutOf(parts, spec, kForLibrary);
  const std::pair shape(layout.rows, layout.segments.columns());
  const auto known = equal_tokens_.find(shape);
  if (known != equal_tokens_.end() && known->second == 0) {
    return PackAs(parts, spec, policy());
  }
  CARAVAN_ASSIGN_OR_RETURN(std::unique_ptr<CudaMatrix> library,
                           PackAs(parts, spec, kForLibrary));
  if (known == equal_tokens_.end()) {
    CARAVAN_ASSIGN_OR_RETURN(std::unique_ptr<CudaMatrix> ours,
                             PackAs(parts, spec, policy()));
    DeviceProducts products(device_.get(), ProductsBy::kKernels, wgmma_tokens_);
    products.UseLibrary(tuner_.get());
    CARAVAN_ASSIGN_OR_RETURN(
        equal_tokens_[shape],
        TokensOfEqualBits(device_.get(), products, *ours, *library,
                          options_.library_check_tokens));
    if (equal_tokens_[shape] == 0) return ours;
  }
  library->library_tokens = equal_tokens_[shape];
  return library;
}

absl::StatusOr<std::unique_ptr<KvStorage>> CudaBackend::AllocateKv(
    const KvSpec& spec) {
  CARAVAN_RETURN_IF_ERROR(Check(spec));
  return AllocateCache(spec, options_.numerics.kv, fragment_cache(),
                       device_.get());
}

absl::Status CudaBackend::Embed(const EmbedArgs& args) {
  CARAVAN_ASSIGN_OR_RETURN(const int32_t* const ids, inputs_.Ids(args.ids));
  CARAVAN_ASSIGN_OR_RETURN(const DeviceView x, inputs_.Out(Slot::kX, args.x));
  const int64_t tokens = inputs_.Padded(args.x.rows);
  const CudaMatrix& table = Own(args.table);
  const OwnedRows& owned = table.layout.owned_rows;
  DeviceView found = x;
  View<float> part;
  if (owned.ranks > 1) {
    CARAVAN_ASSIGN_OR_RETURN(part, collective_.Part(tokens, args.x.cols));
    found = {part.data, part.stride};
  }
  CARAVAN_RETURN_IF_ERROR(device_->Launch<EmbedKernel>(
      {.x = tokens, .threads = EmbedKernel::kThreads},
      {.ids = ids,
       .table = table.weights(),
       .x = found.data,
       .stride = found.stride,
       .first_row = RowsOfRanks(
           owned.whole_rows, owned.ranks)[static_cast<size_t>(owned.rank)]}));
  if (owned.ranks > 1) {
    CARAVAN_RETURN_IF_ERROR(
        collective_.PickRows(part, ids, owned.whole_rows, x));
  }
  return FinishShared(x, args.x);
}

absl::Status CudaBackend::NormQkvRopeStore(const NormQkvRopeStoreArgs& args) {
  const int64_t tokens = inputs_.Padded(args.x.rows);
  if (tokens == 0) return absl::OkStatus();
  const CudaMatrix& w = Own(args.qkv);
  CARAVAN_ASSIGN_OR_RETURN(const DeviceView x, inputs_.In(Slot::kX, args.x));
  CARAVAN_ASSIGN_OR_RETURN(const float* const norm,
                           inputs_.Vector(Slot::kNorm, args.norm));
  CARAVAN_ASSIGN_OR_RETURN(
      const DeviceView normed,
      products_.Norm({x, nullptr, norm, args.epsilon}, tokens, w));
  CARAVAN_ASSIGN_OR_RETURN(void* const qkv, qkv_.Get(QkvBytes(tokens, w.rows)));
  Epilogue epilogue;
  CARAVAN_ASSIGN_OR_RETURN(epilogue.bias,
                           inputs_.Vector(Slot::kBias, args.bias));
  epilogue.out = static_cast<float*>(qkv);
  epilogue.stride = w.rows;
  epilogue.columns = static_cast<int32_t>(w.rows);
  CARAVAN_RETURN_IF_ERROR(products_.Multiply(normed, tokens, w, epilogue));

  CARAVAN_ASSIGN_OR_RETURN(const float* const cos, inputs_.Cos(args.cos));
  CARAVAN_ASSIGN_OR_RETURN(const float* const sin, inputs_.Sin(args.sin));
  CARAVAN_ASSIGN_OR_RETURN(const int64_t* const slots,
                           inputs_.Slots(args.slots));
  CARAVAN_ASSIGN_OR_RETURN(const DeviceView q, inputs_.Out(Slot::kQ, args.q));
  CARAVAN_RETURN_IF_ERROR(
      device_->Launch<RopeStoreKernel>({.x = tokens,
                                        .y = args.heads + 2 * args.kv_heads,
                                        .threads = RopeStoreKernel::kThreads},
                                       {.qkv = epilogue.out,
                                        .stride = epilogue.stride,
                                        .cos = cos,
                                        .sin = sin,
                                        .slots = slots,
                                        .layer = args.layer,
                                        .heads = args.heads,
                                        .cache = Own(args.kv).cache,
                                        .q = q.data,
                                        .q_stride = q.stride}));
  return inputs_.Finish(q, args.q);
}

absl::Status CudaBackend::Attend(const AttendArgs& args) {
  if (args.q.rows == 0) return absl::OkStatus();
  CARAVAN_ASSIGN_OR_RETURN(const DeviceView q, inputs_.In(Slot::kQ, args.q));
  CARAVAN_ASSIGN_OR_RETURN(const DeviceView out,
                           inputs_.Out(Slot::kOut, args.out));
  const TileShape tile = ShapeOfTile(args.heads, args.kv_heads);
  CARAVAN_ASSIGN_OR_RETURN(
      const DeviceTables* const tables,
      inputs_.Tables(args.rows, {split_keys(), tile.tokens}));
  CARAVAN_RETURN_IF_ERROR(attention_.Run({.tokens = inputs_.Padded(args.q.rows),
                                          .layer = args.layer,
                                          .heads = args.heads,
                                          .cache = Own(args.kv).cache,
                                          .q = q,
                                          .out = out,
                                          .tables = tables}));
  return inputs_.Finish(out, args.out);
}

absl::Status CudaBackend::AddProduct(const View<const float>& in,
                                     const PackedMatrix* matrix,
                                     std::span<const float> bias,
                                     const View<float>& x) {
  const CudaMatrix& w = Own(matrix);
  CARAVAN_ASSIGN_OR_RETURN(const DeviceView a, inputs_.In(Slot::kQ, in));
  const int64_t tokens = inputs_.Padded(in.rows);
  CARAVAN_ASSIGN_OR_RETURN(const DeviceView operand,
                           products_.Operand(a, tokens, w));
  CARAVAN_ASSIGN_OR_RETURN(const DeviceView target, inputs_.In(Slot::kX, x));
  Epilogue epilogue;
  epilogue.mode = EpilogueMode::kAdd;
  CARAVAN_ASSIGN_OR_RETURN(epilogue.bias, inputs_.Vector(Slot::kBias, bias));
  if (w.layout.partial) {
    CARAVAN_RETURN_IF_ERROR(
        AddRanks(operand, tokens, w, epilogue.bias, target));
    return FinishShared(target, x);
  }
  epilogue.out = target.data;
  epilogue.stride = target.stride;
  epilogue.columns = static_cast<int32_t>(w.rows);
  CARAVAN_RETURN_IF_ERROR(products_.Multiply(operand, tokens, w, epilogue));
  return inputs_.Finish(target, x);
}

absl::Status CudaBackend::AddRanks(const DeviceView& operand, int64_t tokens,
                                   const CudaMatrix& w, const float* bias,
                                   const DeviceView& x) {
  CARAVAN_ASSIGN_OR_RETURN(const View<float> part,
                           collective_.Part(tokens, w.rows));
  Epilogue epilogue;
  epilogue.out = part.data;
  epilogue.stride = part.stride;
  epilogue.columns = static_cast<int32_t>(w.rows);
  CARAVAN_RETURN_IF_ERROR(products_.Multiply(operand, tokens, w, epilogue));
  // Tensor cores' sums keep what is subnormal, as those of one device do.
  AllReduceAddArgs sum = {.partial = part,
                          .bias = {},
                          .flush = false,
                          .x = View<float>(x.data, tokens, w.rows, x.stride)};
  if (bias != nullptr) sum.bias = {bias, static_cast<size_t>(w.rows)};
  return collective_.AllReduceAdd(options_.rank, sum);
}

absl::Status CudaBackend::NormGateUpSilu(const NormGateUpSiluArgs& args) {
  const CudaMatrix& w = Own(args.gate_up);
  const int64_t tokens = inputs_.Padded(args.x.rows);
  CARAVAN_ASSIGN_OR_RETURN(const DeviceView x, inputs_.In(Slot::kX, args.x));
  CARAVAN_ASSIGN_OR_RETURN(const float* const norm,
                           inputs_.Vector(Slot::kNorm, args.norm));
  CARAVAN_ASSIGN_OR_RETURN(
      const DeviceView normed,
      products_.Norm({x, nullptr, norm, args.epsilon}, tokens, w));
  CARAVAN_ASSIGN_OR_RETURN(const DeviceView out,
                           inputs_.Out(Slot::kOut, args.out));
  Epilogue epilogue;
  epilogue.mode = EpilogueMode::kSilu;
  CARAVAN_ASSIGN_OR_RETURN(epilogue.bias,
                           inputs_.Vector(Slot::kBias, args.gate_bias));
  CARAVAN_ASSIGN_OR_RETURN(epilogue.up_bias,
                           inputs_.Vector(Slot::kUpBias, args.up_bias));
  epilogue.out = out.data;
  epilogue.stride = out.stride;
  epilogue.columns = static_cast<int32_t>(args.out.cols);
  CARAVAN_RETURN_IF_ERROR(products_.Multiply(normed, tokens, w, epilogue));
  return inputs_.Finish(out, args.out);
}

absl::Status CudaBackend::NormHead(const NormHeadArgs& args) {
  const int64_t rows = std::ssize(args.tokens);
  if (rows == 0) return absl::OkStatus();
  const CudaMatrix& w = Own(args.head);
  CARAVAN_ASSIGN_OR_RETURN(const DeviceView x, inputs_.In(Slot::kX, args.x));
  CARAVAN_ASSIGN_OR_RETURN(const int32_t* const tokens,
                           inputs_.Tokens(args.tokens));
  CARAVAN_ASSIGN_OR_RETURN(const float* const norm,
                           inputs_.Vector(Slot::kNorm, args.norm));
  CARAVAN_ASSIGN_OR_RETURN(
      const DeviceView normed,
      products_.Norm({x, tokens, norm, args.epsilon}, rows, w));
  CARAVAN_ASSIGN_OR_RETURN(const DeviceView logits,
                           inputs_.Out(Slot::kOut, args.logits));
  const OwnedRows& owned = w.layout.owned_rows;
  DeviceView target = logits;
  View<float> part;
  if (owned.ranks > 1) {
    CARAVAN_ASSIGN_OR_RETURN(
        part, collective_.Part(rows, collective_.WidestPart(owned.whole_rows)));
    target = {part.data, part.stride};
  }
  Epilogue epilogue;
  epilogue.out = target.data;
  epilogue.stride = target.stride;
  epilogue.columns = static_cast<int32_t>(w.rows);
  CARAVAN_RETURN_IF_ERROR(products_.Multiply(normed, rows, w, epilogue));
  if (owned.ranks > 1) {
    CARAVAN_RETURN_IF_ERROR(
        collective_.PlaceColumns(part, owned.whole_rows, logits));
  }
  return FinishShared(logits, args.logits);
}

absl::Status CudaBackend::Sample(const SampleArgs& args) {
  if (device_->Owns(args.logits.data)) return sampler_.Run(args);
  const size_t count = static_cast<size_t>(args.logits.cols);
  for (size_t i = 0; i < args.scores.size(); ++i) {
    const ScoreRow& row = args.scores[i];
    args.scored[i] = ScoreToken({args.logits.row(row.logits_row), count},
                                row.token_id, row.candidate_count);
  }
  for (size_t i = 0; i < args.samples.size(); ++i) {
    const SampleRow& row = args.samples[i];
    args.sampled[i] =
        SampleToken({args.logits.row(row.logits_row), count}, row);
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::CopyBlocks(const CopyBlocksArgs& args) {
  CudaKv& kv = Own(args.kv);
  const int64_t block_words =
      kv.block_elements() * static_cast<int64_t>(SizeOf(kv.cache.dtype)) / 4;
  for (const BlockCopy& copy : args.copies) {
    if (copy.source == copy.target) continue;
    CARAVAN_RETURN_IF_ERROR(device_->Launch<CopyBlockKernel>(
        {.x = kv.layers,
         .y = CeilDiv(block_words, CopyBlockKernel::kWords),
         .threads = CopyBlockKernel::kThreads},
        {.data = static_cast<uint32_t*>(kv.cache.data),
         .layer_words = block_words * kv.block_count,
         .block_words = block_words,
         .source = copy.source,
         .target = copy.target}));
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const CudaOptions& options) {
  if (options.numerics.activations == ActivationType::kInt8) {
    return UnsupportedError("--activations=int8",
                            "the cuda backend has fp32, bf16 and fp8");
  }
  if (options.profile == CudaProfile::kFast &&
      options.numerics.activations == ActivationType::kFp32) {
    return UnsupportedError("--profile=fast",
                            "it multiplies bf16 activations; use "
                            "--activations=bf16 or --profile=exact");
  }
  const int32_t check = options.library_check_tokens;
  if (check < 0 || check > kMaxGemmTokens) {
    return FieldError("--library-check", StrCat("in [0, ", kMaxGemmTokens, "]"),
                      StrCat(check));
  }
  if (options.ranks > 1 &&
      (options.profile == CudaProfile::kFast || check > 0)) {
    return UnsupportedError(StrCat("--ranks=", options.ranks),
                            "ranks on devices compute --profile=exact, without "
                            "--library-check");
  }
  if (options.ranks > 1 &&
      options.numerics.activations == ActivationType::kFp8) {
    return UnsupportedError(StrCat("--ranks=", options.ranks),
                            "a row's scale of --activations=fp8 is of all its "
                            "columns; use bf16");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeBackendOn(
    std::unique_ptr<Device> device, const CudaOptions& options,
    const Clock& clock) {
  CARAVAN_RETURN_IF_ERROR(CheckOptions(options));
  if (options.numerics.activations == ActivationType::kFp8 && !device->fp8()) {
    return UnsupportedError("--activations=fp8",
                            "it needs a GPU of sm_89 or later; use bf16");
  }
  CARAVAN_ASSIGN_OR_RETURN(const int64_t wgmma_tokens,
                           WgmmaTokens(*device, options));
  auto backend =
      std::make_unique<CudaBackend>(std::move(device), options, wgmma_tokens);
  if (options.profile == CudaProfile::kFast ||
      options.library_check_tokens > 0) {
    CARAVAN_RETURN_IF_ERROR(backend->OpenLibrary(clock));
  }
  return backend;
}

absl::StatusOr<std::unique_ptr<Backend>> MakePlannerOn(
    std::unique_ptr<Device> device, const CudaOptions& options) {
  CARAVAN_RETURN_IF_ERROR(CheckOptions(options));
  // Either instruction takes the same memory.
  return std::make_unique<CudaBackend>(std::move(device), options,
                                       std::numeric_limits<int64_t>::max());
}

}  // namespace caravan::worker::cuda

namespace caravan::worker {

absl::StatusOr<TensorCores> ParseTensorCores(std::string_view name) {
  if (name == "auto") return TensorCores::kAuto;
  if (name == "mma") return TensorCores::kMma;
  if (name == "wgmma") return TensorCores::kWgmma;
  return FieldError("--tensor-cores", "one of auto, mma, wgmma", name);
}

absl::StatusOr<CudaPeers> ParseCudaPeers(std::string_view name) {
  if (name == "nccl") return CudaPeers::kNccl;
  if (name == "host") return CudaPeers::kHost;
  return FieldError("--peers", "one of nccl, host", name);
}

}  // namespace caravan::worker
