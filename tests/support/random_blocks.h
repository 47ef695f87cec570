// Bytes that a file may hold as weights of a block type.
#ifndef CARAVAN_TESTS_SUPPORT_RANDOM_BLOCKS_H_
#define CARAVAN_TESTS_SUPPORT_RANDOM_BLOCKS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "worker/tensor/fp8.h"
#include "worker/tensor/quantize.h"

namespace caravan::testing {

inline void MakeFp8(std::vector<std::byte>& bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const size_t place = i % worker::kFp8BlockBytes;
    if (place < sizeof(float)) {
      bytes[i] = bytes[place];
    } else {
      bytes[i] &= std::byte{0xbf};  // magnitudes below 2
    }
  }
}

// `count` elements of a type of blocks: any codes; scales of 2^-6 to 2^-3, of
// either sign where they are fp16. Of fp8 all have one scale, and none is NaN.
inline std::vector<std::byte> RandomBlocks(std::mt19937& random,
                                           worker::WeightType type,
                                           int64_t count) {
  std::vector<std::byte> bytes(
      static_cast<size_t>(worker::RowBytes(type, count)));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  const size_t block = static_cast<size_t>(worker::InfoOf(type).bytes);
  for (size_t i = 0; i < bytes.size(); i += block) {
    for (const int offset : worker::HalfOffsets(type)) {
      bytes[i + static_cast<size_t>(offset) + 1] =
          static_cast<std::byte>((random() & 0x80) | (0x24 + random() % 0x10));
    }
    if (!worker::HalfOffsets(type).empty()) continue;
    const float scale = (1.0f + static_cast<float>(random() % 4096) * 0x1p-9f) /
                        64;  // of nf4 and fp4, before the codes
    std::memcpy(bytes.data() + i, &scale, sizeof(scale));
  }
  if (type == worker::WeightType::kFp8) MakeFp8(bytes);
  return bytes;
}

}  // namespace caravan::testing

#endif  // CARAVAN_TESTS_SUPPORT_RANDOM_BLOCKS_H_
