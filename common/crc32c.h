// CRC32C (Castagnoli, reflected, as in RFC 3720): what finds bytes that a wire
// or a memory has changed. Not a hash for tables, and no protection against
// people.
#ifndef CARAVAN_COMMON_CRC32C_H_
#define CARAVAN_COMMON_CRC32C_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace caravan {

// Of `bytes` behind bytes whose CRC is `crc`; 0 to begin with. Uses the
// processor's instruction where there is one. Thread-safe.
uint32_t ExtendCrc32c(uint32_t crc, std::span<const std::byte> bytes);

inline uint32_t Crc32c(std::span<const std::byte> bytes) {
  return ExtendCrc32c(0, bytes);
}

// The same without the instruction: eight bytes at a time from tables.
uint32_t ExtendCrc32cPortable(uint32_t crc, std::span<const std::byte> bytes);

}  // namespace caravan

#endif  // CARAVAN_COMMON_CRC32C_H_
