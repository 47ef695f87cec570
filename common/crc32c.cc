#include "common/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace caravan {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected

// kTables[k][b] is the CRC of byte b with k zero bytes behind it.
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables MakeTables() {
  Tables tables = {};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ (crc & 1 ? kPolynomial : 0);
    }
    tables[0][b] = crc;
  }
  for (size_t k = 1; k < tables.size(); ++k) {
    for (uint32_t b = 0; b < 256; ++b) {
      const uint32_t crc = tables[k - 1][b];
      tables[k][b] = (crc >> 8) ^ tables[0][crc & 255];
    }
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

uint32_t AddByte(uint32_t crc, std::byte byte) {
  return (crc >> 8) ^ kTables[0][(crc ^ static_cast<uint32_t>(byte)) & 255];
}

uint64_t LoadWord(const std::byte* bytes) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

#if defined(__x86_64__)

__attribute__((target("sse4.2"))) uint32_t Accelerated(
    uint32_t crc, std::span<const std::byte> bytes) {
  uint64_t state = ~crc;
  while (bytes.size() >= sizeof(uint64_t)) {
    state = _mm_crc32_u64(state, LoadWord(bytes.data()));
    bytes = bytes.subspan(sizeof(uint64_t));
  }
  auto tail = static_cast<uint32_t>(state);
  for (const std::byte byte : bytes) {
    tail = _mm_crc32_u8(tail, static_cast<uint8_t>(byte));
  }
  return ~tail;
}

bool IsAccelerated() {
  static const bool known = __builtin_cpu_supports("sse4.2") != 0;
  return known;
}

#elif defined(__ARM_FEATURE_CRC32)

uint32_t Accelerated(uint32_t crc, std::span<const std::byte> bytes) {
  uint32_t state = ~crc;
  while (bytes.size() >= sizeof(uint64_t)) {
    state = __crc32cd(state, LoadWord(bytes.data()));
    bytes = bytes.subspan(sizeof(uint64_t));
  }
  for (const std::byte byte : bytes) {
    state = __crc32cb(state, static_cast<uint8_t>(byte));
  }
  return ~state;
}

bool IsAccelerated() { return true; }

#else

uint32_t Accelerated(uint32_t crc, std::span<const std::byte> bytes) {
  return ExtendCrc32cPortable(crc, bytes);
}

bool IsAccelerated() { return false; }

#endif

}  // namespace

uint32_t ExtendCrc32cPortable(uint32_t crc, std::span<const std::byte> bytes) {
  uint32_t state = ~crc;
  while (bytes.size() >= sizeof(uint64_t)) {
    uint32_t next = 0;
    for (size_t i = 0; i < sizeof(uint64_t); ++i) {
      const uint32_t mixed = i < 4 ? (state >> (8 * i)) & 255 : 0;
      next ^= kTables[7 - i][static_cast<uint32_t>(bytes[i]) ^ mixed];
    }
    state = next;
    bytes = bytes.subspan(sizeof(uint64_t));
  }
  for (const std::byte byte : bytes) state = AddByte(state, byte);
  return ~state;
}

uint32_t ExtendCrc32c(uint32_t crc, std::span<const std::byte> bytes) {
  return IsAccelerated() ? Accelerated(crc, bytes)
                         : ExtendCrc32cPortable(crc, bytes);
}

}  // namespace caravan
