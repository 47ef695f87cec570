#include <algorithm>

#include "worker/ops/cuda/kernels/four_bit.h"
#include "worker/tensor/four_bit.h"
#include "worker/tensor/quantize.h"

namespace caravan::worker::cuda {
namespace {

FourBitFormat Linear(FourBitScale scale, int32_t block_bytes, float offset) {
  FourBitFormat format;
  format.scale = scale;
  format.block_bytes = block_bytes;
  format.code_begin = block_bytes - 16;
  for (int q = 0; q < 16; ++q) {
    format.table[q] = static_cast<float>(q) + offset;
  }
  return format;
}

FourBitFormat Float(const std::array<float, 16>& table) {
  FourBitFormat format;
  format.scale = FourBitScale::kFloat;
  format.pairs = true;
  format.block_columns = kFourBitBlock;
  format.block_bytes = kFourBitBlockBytes;
  format.code_begin = sizeof(float);
  std::copy(table.begin(), table.end(), format.table);
  return format;
}

}  // namespace

bool FourBitFormatOf(WeightType type, FourBitFormat& format) {
  switch (type) {
    case WeightType::kQ4_0:
      format = Linear(FourBitScale::kHalf, 18, -8.0f);
      return true;
    case WeightType::kQ4_1:
      format = Linear(FourBitScale::kHalfMinimum, 20, 0.0f);
      return true;
    case WeightType::kIq4Nl:
      format = Linear(FourBitScale::kHalf, 18, 0.0f);
      std::copy(kIq4Values.begin(), kIq4Values.end(), format.table);
      return true;
    case WeightType::kNf4:
      format = Float(kNf4Values);
      return true;
    case WeightType::kFp4:
      format = Float(kFp4Values);
      return true;
    default:
      return false;
  }
}

}  // namespace caravan::worker::cuda
