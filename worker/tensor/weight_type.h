// Types of weights in files and in memory: plain numbers, and blocks of small
// integers with scales. Byte layouts are in quantize.h.
#ifndef CARAVAN_WORKER_TENSOR_WEIGHT_TYPE_H_
#define CARAVAN_WORKER_TENSOR_WEIGHT_TYPE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "worker/tensor/dtype.h"

namespace caravan::worker {

// New types go to the end: the order is that of names in a numerics class.
enum class WeightType : uint8_t {
  kFp32,
  kBf16,
  kFp16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIq4Nl,
  kIq4Xs,
  kTq1_0,
  kTq2_0,
  kNf4,
  kFp4,
  kFp8,
};

// Elements of a row are stored in blocks of `elements`, `bytes` each.
struct WeightTypeInfo {
  std::string_view name;
  int32_t elements;
  int32_t bytes;
};

inline constexpr std::array<WeightTypeInfo, 20> kWeightTypes = {{
    {"fp32", 1, 4},     {"bf16", 1, 2},     {"fp16", 1, 2},
    {"q8_0", 32, 34},   {"q4_0", 32, 18},   {"q4_1", 32, 20},
    {"q5_0", 32, 22},   {"q5_1", 32, 24},   {"q2_k", 256, 84},
    {"q3_k", 256, 110}, {"q4_k", 256, 144}, {"q5_k", 256, 176},
    {"q6_k", 256, 210}, {"iq4_nl", 32, 18}, {"iq4_xs", 256, 136},
    {"tq1_0", 256, 54}, {"tq2_0", 256, 66}, {"nf4", 64, 36},
    {"fp4", 64, 36},    {"fp8", 32, 36},
}};

inline constexpr const WeightTypeInfo& InfoOf(WeightType type) {
  return kWeightTypes[static_cast<size_t>(type)];
}

// "fp32", "q8_0", "q4_k", ...
inline constexpr std::string_view Name(WeightType type) {
  return InfoOf(type).name;
}

// The type of that name, or nothing.
inline constexpr std::optional<WeightType> WeightTypeFromName(
    std::string_view name) {
  for (size_t i = 0; i < kWeightTypes.size(); ++i) {
    if (kWeightTypes[i].name == name) return static_cast<WeightType>(i);
  }
  return std::nullopt;
}

inline constexpr WeightType FromDType(DType dtype) {
  return dtype == DType::kFp32
             ? WeightType::kFp32
             : (dtype == DType::kBf16 ? WeightType::kBf16 : WeightType::kFp16);
}

// Whether elements are stored one by one, without scales.
inline constexpr bool IsPlain(WeightType type) {
  return InfoOf(type).elements == 1;
}

// The element type of a plain type.
inline constexpr std::optional<DType> PlainDType(WeightType type) {
  switch (type) {
    case WeightType::kFp32:
      return DType::kFp32;
    case WeightType::kBf16:
      return DType::kBf16;
    case WeightType::kFp16:
      return DType::kFp16;
    default:
      return std::nullopt;
  }
}

// Bytes of a row of `cols` elements, a multiple of the type's block.
inline constexpr int64_t RowBytes(WeightType type, int64_t cols) {
  const WeightTypeInfo& info = InfoOf(type);
  return cols / info.elements * info.bytes;
}

// Which types occur together, such as those of a model's matrices. Converts
// from one type. A plain value.
class WeightTypes {
 public:
  WeightTypes() = default;
  WeightTypes(WeightType type) { Add(type); }          // NOLINT: a set of one
  WeightTypes(DType dtype) { Add(FromDType(dtype)); }  // NOLINT: the same

  void Add(WeightType type) { bits_ |= BitOf(type); }
  void Add(WeightTypes types) { bits_ |= types.bits_; }
  bool Has(WeightType type) const { return (bits_ & BitOf(type)) != 0; }
  bool empty() const { return bits_ == 0; }
  bool AllPlain() const;

  // Calls visit(type) in the order of the enum.
  template <typename Visit>
  void ForEach(const Visit& visit) const {
    for (size_t i = 0; i < kWeightTypes.size(); ++i) {
      if (Has(static_cast<WeightType>(i))) visit(static_cast<WeightType>(i));
    }
  }

  friend bool operator==(WeightTypes, WeightTypes) = default;

 private:
  static uint64_t BitOf(WeightType type) {
    return uint64_t{1} << static_cast<int>(type);
  }

  uint64_t bits_ = 0;
};

inline bool WeightTypes::AllPlain() const {
  bool plain = true;
  ForEach([&plain](WeightType type) { plain = plain && IsPlain(type); });
  return plain;
}

// "bf16"; of several types "q4_k+q6_k".
inline std::string Name(WeightTypes types) {
  std::string name;
  types.ForEach([&name](WeightType type) {
    if (!name.empty()) name += '+';
    name += Name(type);
  });
  return name;
}

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_TENSOR_WEIGHT_TYPE_H_
