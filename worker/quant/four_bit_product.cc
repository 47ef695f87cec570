#include "worker/quant/four_bit_product.h"

#include <cmath>
#include <cstring>

#include "worker/tensor/four_bit.h"

namespace caravan::worker::quant {
namespace {

constexpr int kLines = 8;  // of codes, of a block
constexpr int kCodesPerWord = 8;
constexpr int64_t kLineBytes = 64;           // of one vector
constexpr int64_t kBlockLines = kLines + 1;  // and one of scales

template <typename T>
T Load(const std::byte* source) {
  T value;
  std::memcpy(&value, source, sizeof(value));
  return value;
}

// Code `i` of a block as files have it.
uint32_t CodeAt(const std::byte* codes, int64_t i) {
  const auto pair = std::to_integer<uint32_t>(codes[i / 2]);
  return i % 2 == 0 ? pair >> 4 : pair & 15;
}

// Where line `line` of block `block` of a vector's lane lies.
int64_t Offset(const FourBitPlace& place, int64_t block, int line, int lane) {
  return ((block * kBlockLines + line) * place.vectors + place.vector) *
             kLineBytes +
         lane * 4;
}

void PackBlock(const std::byte* source, const FourBitPlace& place,
               int64_t block, int lane, std::byte* panel) {
  const std::byte* const codes = source + sizeof(float);
  for (int line = 0; line < kLines; ++line) {
    uint32_t word = 0;
    for (int i = 0; i < kCodesPerWord; ++i) {
      word |= CodeAt(codes, line * kCodesPerWord + i) << (4 * i);
    }
    std::memcpy(panel + Offset(place, block, line, lane), &word, sizeof(word));
  }
  std::memcpy(panel + Offset(place, block, kLines, lane), source,
              sizeof(float));
}

}  // namespace

const float* FourBitTable(WeightType type) {
  if (type == WeightType::kNf4) return kNf4Values.data();
  if (type == WeightType::kFp4) return kFp4Values.data();
  return nullptr;
}

float ReferenceFourBitProduct(WeightType type, const std::byte* row,
                              const float* x, const int64_t* borders,
                              int segments) {
  const float* const table = FourBitTable(type);
  std::array<float, 8> s = {};
  for (int i = 0; i < segments; ++i) {
    for (int64_t k = borders[i]; k < borders[i + 1]; k += kFourBitBlock) {
      const std::byte* const block =
          row + k / kFourBitBlock * kFourBitBlockBytes;
      const std::byte* const codes = block + sizeof(float);
      float sum = 0;
      for (int64_t j = 0; j < kFourBitBlock; ++j) {
        sum = std::fma(table[CodeAt(codes, j)], x[k + j], sum);
      }
      s[i] = std::fma(sum, Load<float>(block), s[i]);
    }
  }
  if (segments == 1) return s[0];
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

int64_t FourBitVectorBytes(int64_t blocks) {
  return blocks * kBlockLines * kLineBytes;
}

void PackFourBit(const std::array<const std::byte*, kLanes>& rows,
                 int64_t blocks, const FourBitPlace& place, std::byte* panel) {
  for (int64_t block = 0; block < blocks; ++block) {
    for (int lane = 0; lane < kLanes; ++lane) {
      if (rows[lane] == nullptr) continue;
      PackBlock(rows[lane] + block * kFourBitBlockBytes, place, block, lane,
                panel);
    }
  }
}

void UnpackFourBit(WeightType type, const FourBitPlace& place, int lane,
                   int64_t blocks, const std::byte* panel, float* out) {
  const float* const table = FourBitTable(type);
  for (int64_t block = 0; block < blocks; ++block) {
    const auto scale = Load<float>(panel + Offset(place, block, kLines, lane));
    for (int line = 0; line < kLines; ++line) {
      auto word = Load<uint32_t>(panel + Offset(place, block, line, lane));
      for (int i = 0; i < kCodesPerWord; ++i, word >>= 4) {
        *out++ = table[word & 15] * scale;
      }
    }
  }
}

}  // namespace caravan::worker::quant
