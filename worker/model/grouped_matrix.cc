#include "worker/model/grouped_matrix.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/json_file.h"
#include "worker/tensor/dtype.h"

namespace caravan::worker {
namespace {

constexpr int kWordBits = 32;
constexpr int kBlock = 32;  // elements of q4_0, q5_0 and q8_0
// AWQ keeps column 8c + i of a word's eight in its nibble kAwqNibble[i].
constexpr std::array<int, 8> kAwqNibble = {0, 4, 1, 5, 2, 6, 3, 7};

absl::Status TensorError(const TensorRecord& tensor, std::string_view what,
                         std::string_view limit, std::string_view value) {
  return ModelFileError(
      tensor.file,
      StrCat("tensor ", tensor.name, " at offset ", tensor.offset, ": ", what),
      limit, value);
}

absl::Status CheckTensor(const TensorRecord& tensor, std::string_view dtype,
                         std::vector<int64_t> shape) {
  if (tensor.dtype_name != dtype) {
    return TensorError(tensor, "dtype", dtype, tensor.dtype_name);
  }
  if (tensor.shape == shape) return absl::OkStatus();
  const auto text = [](const std::vector<int64_t>& sizes) {
    std::string list;
    for (const int64_t size : sizes) {
      StrAppend(&list, list.empty() ? "[" : ", ", size);
    }
    return list + "]";
  };
  return TensorError(tensor, "shape", text(shape), text(tensor.shape));
}

uint32_t WordAt(const std::byte* words, int64_t index) {
  uint32_t word = 0;
  std::memcpy(&word, words + index * sizeof(word), sizeof(word));
  return word;
}

// Code `index` of the stream of `bits`-wide codes that begins at word `first`,
// lowest bits first.
uint32_t CodeAt(const std::byte* words, int64_t first, int64_t index,
                int bits) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit % kWordBits);
  const int64_t word = first + bit / kWordBits;
  uint64_t value = WordAt(words, word);
  if (shift + bits > kWordBits) {
    value |= uint64_t{WordAt(words, word + 1)} << kWordBits;
  }
  return static_cast<uint32_t>(value >> shift) & ((1u << bits) - 1);
}

struct Range {
  int32_t least = 0;
  int32_t most = 0;
  bool Inside(int32_t low, int32_t high) const {
    return least >= low && most <= high;
  }
};

// What codes less zero points can be.
Range RangeOf(const GroupedMatrix& matrix, int bits) {
  int32_t least = 255, most = 0;
  UnpackedRows rows;
  for (int64_t r = 0; r < matrix.rows(); r += GroupedMatrix::kRowRun) {
    matrix.UnpackScales(r, std::min(GroupedMatrix::kRowRun, matrix.rows() - r),
                        rows);
    for (const uint8_t zero : rows.zeros) {
      least = std::min<int32_t>(least, zero);
      most = std::max<int32_t>(most, zero);
    }
  }
  return {-most, (1 << bits) - 1 - least};
}

bool ScalesFitFp16(const GroupedMatrix& matrix) {
  UnpackedRows rows;
  for (int64_t r = 0; r < matrix.rows(); r += GroupedMatrix::kRowRun) {
    matrix.UnpackScales(r, std::min(GroupedMatrix::kRowRun, matrix.rows() - r),
                        rows);
    for (const float scale : rows.scales) {
      if (ToFloat(ToFp16(scale)) != scale) return false;
    }
  }
  return true;
}

// Columns by group, those of a group in their order; nothing where a block
// would have columns of two groups.
std::optional<std::vector<int32_t>> OrderByGroup(const GroupedMatrix& matrix) {
  const std::span<const int32_t> groups = matrix.group_of_col();
  std::vector<int32_t> order(groups.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return groups[a] < groups[b]; });
  for (size_t c = 0; c < order.size(); ++c) {
    if (groups[order[c]] != groups[order[c - c % kBlock]]) return std::nullopt;
  }
  if (std::is_sorted(order.begin(), order.end())) order.clear();
  return order;
}

void PutFp16(float value, std::byte*& target) {
  const uint16_t bits = ToFp16(value).bits;
  std::memcpy(target, &bits, sizeof(bits));
  target += sizeof(bits);
}

// One block of 32 weights d * values[i].
void WriteBlock(WeightType type, float d, const std::array<int, kBlock>& values,
                std::byte* target) {
  PutFp16(d, target);
  if (type == WeightType::kQ8_0) {
    for (const int value : values) *target++ = static_cast<std::byte>(value);
    return;
  }
  const int offset = type == WeightType::kQ4_0 ? 8 : 16;
  uint32_t fifth = 0;
  for (int i = 0; i < kBlock; ++i) {
    fifth |= static_cast<uint32_t>((values[i] + offset) >> 4 & 1) << i;
  }
  if (type == WeightType::kQ5_0) {
    std::memcpy(target, &fifth, sizeof(fifth));
    target += sizeof(fifth);
  }
  for (int i = 0; i < kBlock / 2; ++i) {
    const int low = (values[i] + offset) & 15;
    const int high = (values[i + kBlock / 2] + offset) & 15;
    target[i] = static_cast<std::byte>(low | high << 4);
  }
}

}  // namespace

absl::Status GroupedMatrix::ReadShapes(const GroupedTensors& tensors) {
  const auto missing = [&](std::string_view part) {
    return ModelFileError(tensors.qweight->file,
                          StrCat("tensor ", tensors.name, ".", part),
                          "in the checkpoint", "absence");
  };
  if (tensors.qzeros == nullptr) return missing("qzeros");
  if (tensors.scales == nullptr) return missing("scales");
  const TensorRecord& weight = *tensors.qweight;
  const TensorRecord& scales = *tensors.scales;
  if (weight.shape.size() != 2 || scales.shape.size() != 2) {
    return TensorError(weight, "shape", "two sizes, as that of scales",
                       StrCat(weight.shape.size()));
  }
  rows_ = scales.shape[1];
  groups_ = scales.shape[0];
  const int64_t codes = kWordBits / bits_;
  cols_ = awq_ ? weight.shape[0]
               : (bits_ == 3 ? weight.shape[0] / 3 * kWordBits
                             : weight.shape[0] * codes);
  if (rows_ == 0 || cols_ == 0 || groups_ == 0 || rows_ % kWordBits != 0 ||
      cols_ % kWordBits != 0 || groups_ > cols_) {
    return TensorError(
        weight, "matrix",
        "of outputs and inputs in multiples of 32 and at most "
        "as many groups as inputs",
        StrCat(rows_, " outputs, ", cols_, " inputs, ", groups_, " groups"));
  }
  const int64_t row_words = rows_ / kWordBits * bits_;
  CARAVAN_RETURN_IF_ERROR(CheckTensor(
      weight, "I32",
      awq_ ? std::vector<int64_t>{cols_, row_words}
           : std::vector<int64_t>{cols_ / kWordBits * bits_, rows_}));
  return CheckTensor(*tensors.qzeros, "I32", {groups_, row_words});
}

absl::Status GroupedMatrix::ReadGroups(const GroupedTensors& tensors,
                                       int64_t group_size) {
  if (group_size == 0) group_size = cols_;
  const int64_t expected = (cols_ + group_size - 1) / group_size;
  if (groups_ != expected) {
    return TensorError(
        *tensors.scales, "groups",
        StrCat(expected, " by ", cols_, " inputs in groups of ", group_size),
        StrCat(groups_));
  }
  group_of_col_.resize(static_cast<size_t>(cols_));
  for (int64_t c = 0; c < cols_; ++c) {
    group_of_col_[c] = static_cast<int32_t>(c / group_size);
  }
  if (tensors.g_idx == nullptr || awq_) return absl::OkStatus();
  CARAVAN_RETURN_IF_ERROR(CheckTensor(*tensors.g_idx, "I32", {cols_}));
  for (int64_t c = 0; c < cols_; ++c) {
    const auto group = static_cast<int32_t>(WordAt(tensors.g_idx->data, c));
    if (group < 0 || group >= groups_) {
      return TensorError(*tensors.g_idx, StrCat("group of input ", c),
                         StrCat("in [0, ", groups_, ")"), StrCat(group));
    }
    group_of_col_[c] = group;
  }
  return absl::OkStatus();
}

absl::Status GroupedMatrix::CheckScales(const GroupedTensors& tensors) const {
  for (int64_t g = 0; g < groups_; ++g) {
    for (int64_t r = 0; r < rows_; ++r) {
      if (std::isfinite(Scale(g, r))) continue;
      return TensorError(*tensors.scales, StrCat("scale [", g, ", ", r, "]"),
                         "finite", "not");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<GroupedMatrix> GroupedMatrix::Make(
    const QuantizationConfig& config, const GroupedTensors& tensors) {
  GroupedMatrix matrix;
  matrix.awq_ = config.method == QuantizationMethod::kAwq;
  matrix.bits_ = config.bits;
  matrix.zeros_less_one_ = !matrix.awq_ && config.zeros_less_one;
  CARAVAN_RETURN_IF_ERROR(matrix.ReadShapes(tensors));
  const std::optional<DType> type = tensors.scales->dtype();
  if (!type) {
    return TensorError(*tensors.scales, "dtype", "F16, BF16 or F32",
                       tensors.scales->dtype_name);
  }
  matrix.scale_type_ = *type;
  matrix.words_ = tensors.qweight->data;
  matrix.zeros_ = tensors.qzeros->data;
  matrix.scales_ = tensors.scales->data;
  CARAVAN_RETURN_IF_ERROR(matrix.ReadGroups(tensors, config.group_size));
  CARAVAN_RETURN_IF_ERROR(matrix.CheckScales(tensors));
  return matrix;
}

float GroupedMatrix::Scale(int64_t group, int64_t row) const {
  const std::byte* const at =
      scales_ +
      (group * rows_ + row) * static_cast<int64_t>(SizeOf(scale_type_));
  if (scale_type_ == DType::kFp32) {
    float value = 0;
    std::memcpy(&value, at, sizeof(value));
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof(bits));
  return scale_type_ == DType::kBf16 ? ToFloat(Bf16{bits})
                                     : ToFloat(Fp16{bits});
}

void GroupedMatrix::UnpackScales(int64_t first, int64_t count,
                                 UnpackedRows& rows) const {
  const uint32_t mask = (1u << bits_) - 1;
  const int64_t row_words = rows_ / kWordBits * bits_;
  rows.zeros.resize(static_cast<size_t>(count * groups_));
  rows.scales.resize(static_cast<size_t>(count * groups_));
  for (int64_t g = 0; g < groups_; ++g) {
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = first + r;
      const int64_t place = awq_ ? row - row % 8 + kAwqNibble[row % 8] : row;
      const uint32_t stored = CodeAt(zeros_, g * row_words, place, bits_);
      rows.zeros[r * groups_ + g] =
          static_cast<uint8_t>((stored + (zeros_less_one_ ? 1 : 0)) & mask);
      rows.scales[r * groups_ + g] = Scale(g, row);
    }
  }
}

// Words of 32 inputs of one output lie `rows_` words apart.
void GroupedMatrix::UnpackGptq(int64_t first, int64_t count,
                               UnpackedRows& rows) const {
  const uint32_t mask = (1u << bits_) - 1;
  std::array<uint32_t, 9> words = {};  // the last one stays 0
  for (int64_t run = 0; run < cols_ / kWordBits; ++run) {
    for (int64_t r = 0; r < count; ++r) {
      uint8_t* const target = rows.codes.data() + r * cols_ + run * kWordBits;
      for (int j = 0; j < bits_; ++j) {
        words[j] = WordAt(words_, (run * bits_ + j) * rows_ + first + r);
      }
      for (int i = 0; i < kWordBits; ++i) {
        const int bit = i * bits_;
        const int word = bit / kWordBits;
        const uint64_t pair =
            uint64_t{words[word + 1]} << kWordBits | words[word];
        target[i] = static_cast<uint8_t>(pair >> (bit % kWordBits) & mask);
      }
    }
  }
}

void GroupedMatrix::UnpackAwq(int64_t first, int64_t count,
                              UnpackedRows& rows) const {
  const int64_t row_words = rows_ / 8;
  for (int64_t c = 0; c < cols_; ++c) {
    for (int64_t r = 0; r < count; r += 8) {
      const uint32_t word = WordAt(words_, c * row_words + (first + r) / 8);
      for (int i = 0; i < 8; ++i) {
        rows.codes[(r + i) * cols_ + c] =
            static_cast<uint8_t>(word >> (4 * kAwqNibble[i]) & 15);
      }
    }
  }
}

void GroupedMatrix::Unpack(int64_t first, int64_t count,
                           UnpackedRows& rows) const {
  UnpackScales(first, count, rows);
  rows.codes.resize(static_cast<size_t>(count * cols_));
  if (awq_) {
    UnpackAwq(first, count, rows);
  } else {
    UnpackGptq(first, count, rows);
  }
}

void GroupedMatrix::Dequantize(int64_t first, int64_t count,
                               float* target) const {
  UnpackedRows rows;
  Unpack(first, count, rows);
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t c = 0; c < cols_; ++c) {
      const size_t group = static_cast<size_t>(r * groups_ + group_of_col_[c]);
      const int code = rows.codes[r * cols_ + c];
      target[r * cols_ + c] =
          rows.scales[group] * static_cast<float>(code - rows.zeros[group]);
    }
  }
}

ExactBlocks FindExactBlocks(const GroupedMatrix& matrix) {
  std::optional<std::vector<int32_t>> order = OrderByGroup(matrix);
  if (!order || !ScalesFitFp16(matrix)) return {};
  const Range range = RangeOf(matrix, matrix.bits());
  WeightType type = WeightType::kFp32;
  if (range.Inside(-8, 7)) {
    type = WeightType::kQ4_0;
  } else if (range.Inside(-16, 15)) {
    type = WeightType::kQ5_0;
  } else if (range.Inside(-128, 127)) {
    type = WeightType::kQ8_0;
  } else {
    return {};
  }
  return {type, *std::move(order)};
}

void WriteRows(const GroupedMatrix& matrix, const ExactBlocks& blocks,
               int64_t first, int64_t count, std::byte* target) {
  UnpackedRows rows;
  matrix.Unpack(first, count, rows);
  const int64_t block_bytes = InfoOf(blocks.type).bytes;
  const int64_t cols = matrix.cols();
  std::array<int, kBlock> values = {};
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t c = 0; c < cols; c += kBlock) {
      const auto column = [&](int64_t at) {
        return blocks.order.empty() ? at : int64_t{blocks.order[at]};
      };
      const size_t group = static_cast<size_t>(
          r * matrix.groups() + matrix.group_of_col()[column(c)]);
      for (int i = 0; i < kBlock; ++i) {
        values[i] = rows.codes[r * cols + column(c + i)] - rows.zeros[group];
      }
      WriteBlock(blocks.type, rows.scales[group], values, target);
      target += block_bytes;
    }
  }
}

}  // namespace caravan::worker
