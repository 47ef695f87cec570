#include "worker/quant/int8_matrix.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker::quant {
namespace {

// One block of a row: signed codes and the scale's bits.
struct Block {
  std::array<int8_t, kGroupElements> q;
  uint16_t scale;
};

Block ReadBlock(WeightType type, const std::byte* bytes) {
  Block block;
  std::memcpy(&block.scale, bytes, sizeof(block.scale));
  bytes += sizeof(block.scale);
  if (type == WeightType::kQ8_0) {
    std::memcpy(block.q.data(), bytes, block.q.size());
    return block;
  }
  for (size_t i = 0; i < 16; ++i) {
    const int both = std::to_integer<int>(bytes[i]);
    block.q[i] = static_cast<int8_t>((both & 15) - 8);
    block.q[i + 16] = static_cast<int8_t>((both >> 4) - 8);
  }
  return block;
}

// A block's codes to one lane of a vector.
void WriteCodes(WeightType type, const Block& block, int64_t lane,
                std::byte* codes) {
  for (int64_t i = 0; i < kGroupElements; ++i) {
    const int q = block.q[i];
    if (type == WeightType::kQ8_0) {
      codes[i / 4 * 64 + lane * 4 + i % 4] = static_cast<std::byte>(q + 128);
    } else {
      codes[i % 16 / 4 * 64 + lane * 4 + i % 4] |=
          static_cast<std::byte>((q + 8) << (i < 16 ? 0 : 4));
    }
  }
}

}  // namespace

Int8Matrix::Int8Matrix(const RawMatrix& source, Buffer buffer)
    : type_(source.type),
      vectors_((source.rows + kLanes - 1) / kLanes),
      groups_(source.cols / kGroupElements),
      code_bytes_(source.type == WeightType::kQ8_0 ? 512 : 256),
      buffer_(std::move(buffer)) {}

absl::StatusOr<std::unique_ptr<Int8Matrix>> Int8Matrix::Pack(
    const RawMatrix& source) {
  if (source.type != WeightType::kQ8_0 && source.type != WeightType::kQ4_0) {
    return UnsupportedError(StrCat("weights=", Name(source.type)),
                            "int8 products are of q8_0 and q4_0 weights");
  }
  const int64_t vectors = (source.rows + kLanes - 1) / kLanes;
  const int64_t group_bytes =
      (source.type == WeightType::kQ8_0 ? 512 : 256) + kScaleBytes;
  CARAVAN_ASSIGN_OR_RETURN(
      Buffer buffer,
      Buffer::Allocate(static_cast<size_t>(
          vectors * (source.cols / kGroupElements) * group_bytes)));
  std::unique_ptr<Int8Matrix> matrix(new Int8Matrix(source, std::move(buffer)));
  for (int64_t r = 0; r < source.rows; ++r) matrix->PackRow(source, r);
  return matrix;
}

int64_t Int8Matrix::panel_count() const {
  return (vectors_ + kPanelVectors - 1) / kPanelVectors;
}

int Int8Matrix::vectors_of(int64_t panel) const {
  return static_cast<int>(
      std::min<int64_t>(kPanelVectors, vectors_ - panel * kPanelVectors));
}

void Int8Matrix::PackRow(const RawMatrix& source, int64_t row) {
  const int64_t panel = row / kPanelRows;
  const int64_t vectors = vectors_of(panel);
  const int64_t vector = row % kPanelRows / kLanes;
  const int64_t lane = row % kLanes;
  const int64_t stride = vectors * (code_bytes_ + kScaleBytes);
  const std::byte* block = source.row(row);
  std::byte* group = buffer_.data() + panel * kPanelVectors * groups_ *
                                          (code_bytes_ + kScaleBytes);
  for (int64_t g = 0; g < groups_; ++g, group += stride) {
    const Block values = ReadBlock(type_, block);
    WriteCodes(type_, values, lane, group + vector * code_bytes_);
    std::memcpy(group + vectors * code_bytes_ + vector * kScaleBytes + lane * 2,
                &values.scale, sizeof(values.scale));
    block += InfoOf(type_).bytes;
  }
}

void Int8Matrix::Multiply(const Int8Table& table, int64_t panel,
                          View<const ActivationGroup> x,
                          std::span<const int64_t> borders,
                          View<float> out) const {
  const Int8PanelArgs args = {
      .data = buffer_.data() +
              panel * kPanelVectors * groups_ * (code_bytes_ + kScaleBytes),
      .vectors = vectors_of(panel),
      .borders = borders.data(),
      .segments = static_cast<int>(borders.size()) - 1,
      .x = x.data,
      .x_stride = x.stride * static_cast<int64_t>(sizeof(ActivationGroup)),
      .tokens = x.rows,
      .out = out.data,
      .out_stride = out.stride};
  if (type_ == WeightType::kQ8_0) {
    table.panel_q8(args);
  } else {
    table.panel_q4(args);
  }
}

namespace {

float ReferenceSegment(WeightType type, const std::byte* row,
                       const ActivationGroup* x, int64_t begin, int64_t end) {
  float acc = 0;
  for (int64_t g = begin; g < end; ++g) {
    const Block block = ReadBlock(type, row + g * InfoOf(type).bytes);
    int32_t sum = 0;
    for (int64_t i = 0; i < kGroupElements; ++i) {
      sum += int32_t{block.q[i]} * x[g].q[i];
    }
    acc = std::fma(static_cast<float>(sum),
                   ToFloat(Fp16{block.scale}) * x[g].scale, acc);
  }
  return acc;
}

}  // namespace

float ReferenceProduct(WeightType type, const std::byte* row,
                       const ActivationGroup* x,
                       std::span<const int64_t> borders) {
  std::array<float, 8> s = {};
  for (size_t i = 0; i + 1 < borders.size(); ++i) {
    s[i] = ReferenceSegment(type, row, x, borders[i], borders[i + 1]);
  }
  if (borders.size() == 2) return s[0];
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

}  // namespace caravan::worker::quant
