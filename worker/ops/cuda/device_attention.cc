#include "worker/ops/cuda/device_attention.h"

#include <cmath>

#include "common/status/status_macros.h"
#include "worker/ops/cuda/cuda_backend.h"
#include "worker/ops/cuda/geometry.h"

namespace caravan::worker::cuda {
namespace {

size_t OutputBytes(int64_t heads, int64_t head_dim) {
  return sizeof(float) * kPartialSlots * heads * head_dim;
}

size_t StatBytes(int64_t heads) {
  return sizeof(float) * kPartialSlots * heads * 2;
}

float ScaleOf(const Cache& cache) {
  return 1.0f / std::sqrt(static_cast<float>(cache.head_dim));
}

}  // namespace

size_t DeviceAttention::ScratchBytes(const ScratchSpec& spec) {
  // Query heads' columns are at most all of qkv's.
  return DeviceBuffer::AllocatedBytes(OutputBytes(1, spec.qkv_rows)) +
         DeviceBuffer::AllocatedBytes(StatBytes(spec.heads));
}

absl::Status DeviceAttention::Reserve(const ScratchSpec& spec) {
  CARAVAN_RETURN_IF_ERROR(outputs_.Get(OutputBytes(1, spec.qkv_rows)).status());
  return stats_.Get(StatBytes(spec.heads)).status();
}

absl::StatusOr<Partials> DeviceAttention::PartialsFor(
    const AttentionOnDevice& args) {
  CARAVAN_ASSIGN_OR_RETURN(
      void* const outputs,
      outputs_.Get(OutputBytes(args.heads, args.cache.head_dim)));
  CARAVAN_ASSIGN_OR_RETURN(void* const stats,
                           stats_.Get(StatBytes(args.heads)));
  return Partials{static_cast<float*>(outputs), static_cast<float*>(stats)};
}

absl::Status DeviceAttention::Run(const AttentionOnDevice& args) {
  CARAVAN_ASSIGN_OR_RETURN(const Partials partials, PartialsFor(args));
  CARAVAN_RETURN_IF_ERROR(!args.cache.fragments ? RunChains(args, partials)
                          : args.cache.dtype == DType::kFp8
                              ? RunMma<Fp8Cache>(args, partials)
                              : RunMma<Bf16Cache>(args, partials));
  return Combine(args, partials);
}

absl::Status DeviceAttention::RunChains(const AttentionOnDevice& args,
                                        const Partials& partials) {
  return device_.Launch<ChainAttendKernel>(
      {.x = args.tokens,
       .y = args.heads,
       .z = args.tables->host.max_splits,
       .threads = ChainAttendKernel::kThreads,
       .shared_bytes =
           ChainAttendKernel::SharedBytes(args.cache.head_dim, split_keys_)},
      {.q = args.q.data,
       .stride = args.q.stride,
       .places = args.tables->places,
       .blocks = args.tables->blocks,
       .cache = args.cache,
       .layer = args.layer,
       .heads = args.heads,
       .split_keys = split_keys_,
       .scale = ScaleOf(args.cache),
       .partials = partials,
       .out = args.out.data,
       .out_stride = args.out.stride});
}

template <typename Elements>
absl::Status DeviceAttention::RunMma(const AttentionOnDevice& args,
                                     const Partials& partials) {
  using Kernel = MmaAttendKernel<Elements>;
  const TileShape tile = ShapeOfTile(args.heads, args.cache.kv_heads);
  return device_.Launch<Kernel>(
      {.x = static_cast<int64_t>(args.tables->host.tiles.size()),
       .y = args.cache.kv_heads * tile.chunks,
       .z = args.tables->host.max_splits,
       .threads = Kernel::kThreads,
       .shared_bytes = Kernel::SharedBytes(args.cache.width())},
      {.q = args.q.data,
       .stride = args.q.stride,
       .tiles = args.tables->tiles,
       .places = args.tables->places,
       .blocks = args.tables->blocks,
       .cache = args.cache,
       .layer = args.layer,
       .heads = args.heads,
       .chunk = tile.chunk_heads,
       .scale = ScaleOf(args.cache),
       .partials = partials,
       .out = args.out.data,
       .out_stride = args.out.stride});
}

absl::Status DeviceAttention::Combine(const AttentionOnDevice& args,
                                      const Partials& partials) {
  if (args.tables->host.partial_count == 0) return absl::OkStatus();
  return device_.Launch<CombineKernel>(
      {.x = args.tokens, .y = args.heads, .threads = CombineKernel::kThreads},
      {.places = args.tables->places,
       .partials = partials,
       .heads = args.heads,
       .head_dim = args.cache.head_dim,
       .split_keys = split_keys_,
       .out = args.out.data,
       .stride = args.out.stride});
}

}  // namespace caravan::worker::cuda
