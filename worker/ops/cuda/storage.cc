#include "worker/ops/cuda/storage.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/tensor/fp8.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker::cuda {
namespace {

DType PlainTypeOf(std::span<const RawMatrix> parts) {
  for (const RawMatrix& part : parts) {
    if (part.type != parts[0].type) return DType::kFp32;
  }
  return PlainDType(parts[0].type).value_or(DType::kFp32);
}

bool SameTypes(std::span<const RawMatrix> parts) {
  for (const RawMatrix& part : parts) {
    if (part.type != parts[0].type) return false;
  }
  return true;
}

// Whether every group of 32 columns lies in one segment.
bool KeepsGroups(const SegmentTable& segments) {
  for (int s = 0; s <= segments.count; ++s) {
    if (segments.begin[s] % kStepDepth != 0) return false;
  }
  return true;
}

bool HasSegments(PackKind kind) {
  return kind == PackKind::kHeadSegments || kind == PackKind::kGroupSegments;
}

// Rows of one matrix on their way to the device.
class Packer {
 public:
  Packer(const MatrixLayout& layout, size_t staging_bytes,
         DeviceBuffer& staging, Device* device, CudaMatrix& matrix)
      : layout_(layout),
        staging_bytes_(staging_bytes),
        staging_(staging),
        device_(*device),
        matrix_(matrix) {}

  absl::Status Part(const RawMatrix& part, int index, int64_t part_begin) {
    const int64_t row_bytes = RowBytes(TargetType(part), part.cols);
    const int64_t at_once =
        std::max<int64_t>(1, static_cast<int64_t>(staging_bytes_) /
                                 std::max<int64_t>(1, row_bytes));
    for (int64_t row = 0; row < part.rows; row += at_once) {
      const int64_t count = std::min(at_once, part.rows - row);
      const std::byte* const source = RowsOf(part, row, count);
      CARAVAN_RETURN_IF_ERROR(
          layout_.fragments
              ? Turn(source, row, count, row_bytes, index, part_begin)
              : device_.Upload(matrix_.buffer.As<std::byte>() +
                                   (part_begin + row) * row_bytes,
                               source, count * row_bytes));
    }
    return absl::OkStatus();
  }

 private:
  // What rows are uploaded in.
  WeightType TargetType(const RawMatrix& part) const {
    return layout_.four_bit || layout_.fp8 ? part.type
                                           : FromDType(layout_.dtype);
  }

  // `count` rows one after the other, in that type.
  const std::byte* RowsOf(const RawMatrix& part, int64_t first, int64_t count) {
    const bool same = part.type == TargetType(part);
    if (same && part.interleaved == 0 && part.stored_cols == part.cols) {
      return part.row(first);
    }
    const size_t row_bytes = RowBytes(TargetType(part), part.cols);
    rows_.resize(count * row_bytes);
    for (int64_t i = 0; i < count; ++i) {
      std::byte* const target = rows_.data() + i * row_bytes;
      if (same) {
        std::memcpy(target, part.row(first + i), row_bytes);
      } else {  // to fp32: PlainTypeOf()
        DequantizeRow(part, first + i, reinterpret_cast<float*>(target));
      }
    }
    return rows_.data();
  }

  absl::Status Turn(const std::byte* source, int64_t first, int64_t count,
                    int64_t row_bytes, int index, int64_t part_begin) {
    const size_t bytes = count * row_bytes;
    if (staging_.bytes() < bytes) {
      CARAVAN_ASSIGN_OR_RETURN(staging_,
                               DeviceBuffer::Allocate(&device_, bytes));
    }
    if (layout_.fp8) CARAVAN_RETURN_IF_ERROR(CheckFp8(source, first, count));
    CARAVAN_RETURN_IF_ERROR(device_.Upload(staging_.data(), source, bytes));
    if (layout_.fp8) {
      return TurnFp8(first, count, row_bytes, index, part_begin);
    }
    if (layout_.four_bit) {
      return TurnFourBit(first, count, row_bytes, index, part_begin);
    }
    return device_.Launch<PackWeightsKernel>(
        {.x = count, .threads = PackWeightsKernel::kThreads},
        {.source = staging_.As<uint16_t>(),
         .target = matrix_.buffer.As<uint16_t>(),
         .segments = layout_.segments,
         .first_row = first,
         .part_begin = part_begin,
         .part = index,
         .interleaved = layout_.kind == PackKind::kGateUp});
  }

  // Products take a row's scale out of its sums, and no code for NaN.
  absl::Status CheckFp8(const std::byte* source, int64_t first,
                        int64_t count) const {
    const int64_t blocks = matrix_.cols / kFp8Block;
    for (int64_t i = 0; i < count * blocks; ++i) {
      const std::byte* const block = source + i * kFp8BlockBytes;
      const std::byte* const row =
          source + i / blocks * blocks * kFp8BlockBytes;
      bool nan = false;
      for (int64_t k = 4; k < kFp8BlockBytes; ++k) {
        nan |= (block[k] & std::byte{0x7f}) == std::byte{0x7f};
      }
      if (!nan && std::memcmp(block, row, 4) == 0) continue;
      return MakeError(
          Reason::kModelFileInvalid,
          StrCat("row ", first + i / blocks, " of a matrix of fp8: ",
                 nan ? "a weight is NaN" : "blocks have different scales"));
    }
    return absl::OkStatus();
  }

  absl::Status TurnFp8(int64_t first, int64_t count, int64_t row_bytes,
                       int index, int64_t part_begin) {
    std::byte* const scales =
        matrix_.buffer.As<std::byte>() +
        Fp8CodeBytes(layout_.row_tiles, layout_.segments.depth());
    return device_.Launch<PackFp8Kernel>(
        {.x = count, .threads = PackFp8Kernel::kThreads},
        {.source = staging_.As<unsigned char>(),
         .row_bytes = row_bytes,
         .codes = matrix_.buffer.As<uint32_t>(),
         .scales = reinterpret_cast<float*>(scales),
         .segments = layout_.segments,
         .first_row = first,
         .part_begin = part_begin,
         .part = index,
         .interleaved = layout_.kind == PackKind::kGateUp});
  }

  absl::Status TurnFourBit(int64_t first, int64_t count, int64_t row_bytes,
                           int index, int64_t part_begin) {
    std::byte* const scales =
        matrix_.buffer.As<std::byte>() +
        CodeBytes(layout_.row_tiles, layout_.segments.depth());
    return device_.Launch<PackFourBitKernel>(
        {.x = count, .threads = PackFourBitKernel::kThreads},
        {.source = staging_.As<unsigned char>(),
         .row_bytes = row_bytes,
         .codes = matrix_.buffer.As<uint32_t>(),
         .scales = reinterpret_cast<unsigned char*>(scales),
         .format = layout_.format,
         .segments = layout_.segments,
         .first_row = first,
         .part_begin = part_begin,
         .part = index,
         .interleaved = layout_.kind == PackKind::kGateUp});
  }

  const MatrixLayout& layout_;
  const size_t staging_bytes_;
  DeviceBuffer& staging_;
  Device& device_;
  CudaMatrix& matrix_;
  std::vector<std::byte> rows_;
};

}  // namespace

size_t MatrixLayout::bytes() const {
  if (four_bit) {
    return CodeBytes(row_tiles, segments.depth()) +
           ScaleBytes(format, row_tiles, segments.depth());
  }
  if (fp8) {
    return Fp8CodeBytes(row_tiles, segments.depth()) + Fp8ScaleBytes(row_tiles);
  }
  return fragments ? row_tiles * kMmaRows * segments.depth() * sizeof(uint16_t)
                   : rows * segments.columns() * SizeOf(dtype);
}

MatrixLayout LayoutOf(std::span<const RawMatrix> parts, const PackSpec& spec,
                      PackPolicy policy) {
  MatrixLayout layout;
  layout.kind = spec.kind;
  layout.dtype = PlainTypeOf(parts);
  for (const RawMatrix& part : parts) layout.rows += part.rows;
  const int64_t cols = parts[0].cols;
  const bool multiplies =
      policy.tensor_cores && spec.kind != PackKind::kEmbedding;
  const bool rounded = multiplies && layout.dtype == DType::kBf16;
  layout.library = rounded && policy.library &&
                   layout.rows % kLibraryUnit == 0 && cols % kLibraryUnit == 0;
  layout.segments = HasSegments(spec.kind) && !layout.library
                        ? OwnSegments(spec.owned, cols, spec.unit)
                        : OneSegment(cols);
  layout.partial = spec.owned != OwnedSegments();
  layout.owned_rows = spec.owned_rows;
  // A rank computes as the whole matrix would be computed.
  const SegmentTable whole =
      layout.partial ? EightSegments(spec.owned.whole_cols, spec.unit)
                     : layout.segments;
  layout.four_bit = multiplies && SameTypes(parts) && KeepsGroups(whole) &&
                    FourBitFormatOf(parts[0].type, layout.format);
  layout.fp8 =
      multiplies && SameTypes(parts) && parts[0].type == WeightType::kFp8;
  layout.fragments =
      (rounded && !layout.library) || layout.four_bit || layout.fp8;
  layout.row_tiles = spec.kind == PackKind::kGateUp
                         ? CeilDiv(parts[0].rows, kMmaRows / 2)
                         : CeilDiv(layout.rows, kMmaRows);
  return layout;
}

Weights CudaMatrix::weights() const {
  Weights weights;
  weights.data = buffer.data();
  if (layout.four_bit) {
    weights.four_bit.codes = buffer.As<uint32_t>();
    weights.four_bit.scales =
        buffer.As<unsigned char>() +
        CodeBytes(layout.row_tiles, layout.segments.depth());
    weights.four_bit.format = layout.format;
  }
  if (layout.fp8) {
    weights.fp8.codes = buffer.As<Words4>();
    weights.fp8.scales = reinterpret_cast<const float*>(
        buffer.As<std::byte>() +
        Fp8CodeBytes(layout.row_tiles, layout.segments.depth()));
  }
  weights.dtype = layout.dtype;
  weights.fragments = layout.fragments;
  weights.rows = static_cast<int32_t>(layout.rows);
  weights.segments = layout.segments;
  return weights;
}

absl::StatusOr<std::unique_ptr<CudaMatrix>> PackMatrix(
    std::span<const RawMatrix> parts, const PackSpec& spec, PackPolicy policy,
    size_t staging_bytes, DeviceBuffer& staging, Device* device) {
  auto matrix = std::make_unique<CudaMatrix>();
  matrix->layout = LayoutOf(parts, spec, policy);
  matrix->rows = matrix->layout.rows;
  matrix->cols = parts[0].cols;
  CARAVAN_ASSIGN_OR_RETURN(
      matrix->buffer, DeviceBuffer::Allocate(device, matrix->layout.bytes()));
  matrix->bytes = matrix->buffer.bytes();
  if (matrix->layout.library) {
    matrix->library_tokens = kMaxGemmTokens;
    matrix->alive = std::make_shared<const int>();
  }
  Packer packer(matrix->layout, staging_bytes, staging, device, *matrix);
  int64_t begin = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(packer.Part(parts[i], static_cast<int>(i), begin));
    begin += parts[i].rows;
  }
  return matrix;
}

int64_t CudaKv::block_elements() const {
  return 2 * cache.tile() * cache.kv_heads;
}

namespace {

Cache CacheOf(const KvSpec& spec, DType dtype, bool fragments) {
  Cache cache;
  cache.dtype = dtype;
  cache.fragments = fragments;
  cache.kv_heads = spec.kv_heads;
  cache.head_dim = spec.head_dim;
  cache.block_count = spec.block_count;
  return cache;
}

}  // namespace

size_t CacheBytes(const KvSpec& spec, DType dtype, bool fragments) {
  const Cache cache = CacheOf(spec, dtype, fragments);
  return DeviceBuffer::AllocatedBytes(static_cast<size_t>(
      cache.KeyBase(spec.layers, 0, 0) * static_cast<int64_t>(SizeOf(dtype))));
}

absl::StatusOr<std::unique_ptr<CudaKv>> AllocateCache(const KvSpec& spec,
                                                      DType dtype,
                                                      bool fragments,
                                                      Device* device) {
  auto kv = std::make_unique<CudaKv>();
  kv->spec = spec;
  kv->layers = spec.layers;
  kv->block_count = spec.block_count;
  kv->cache = CacheOf(spec, dtype, fragments);
  CARAVAN_ASSIGN_OR_RETURN(
      kv->buffer,
      DeviceBuffer::Allocate(device, CacheBytes(spec, dtype, fragments)));
  kv->cache.data = kv->buffer.data();
  kv->bytes = kv->buffer.bytes();
  return kv;
}

}  // namespace caravan::worker::cuda
