#include "common/crc32c.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace caravan {
namespace {

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(Crc32cTest, KnownAnswers) {
  EXPECT_EQ(Crc32c({}), 0u);
  EXPECT_EQ(Crc32c(Bytes("123456789")), 0xe3069283u);
  // RFC 3720, B.4.
  EXPECT_EQ(Crc32c(std::vector<std::byte>(32, std::byte{0})), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::vector<std::byte>(32, std::byte{0xff})), 0x62a8ab43u);
  std::vector<std::byte> ascending;
  for (int i = 0; i < 32; ++i) ascending.push_back(std::byte(i));
  EXPECT_EQ(Crc32c(ascending), 0x46dd794eu);
}

TEST(Crc32cTest, TablesAndInstructionAgreeOnEverySizeAndSplit) {
  std::vector<std::byte> bytes;
  for (int i = 0; i < 100; ++i) bytes.push_back(std::byte((i * 131 + 7) & 255));
  const std::span<const std::byte> all = bytes;
  for (size_t size = 0; size <= all.size(); ++size) {
    const uint32_t crc = Crc32c(all.first(size));
    EXPECT_EQ(crc, ExtendCrc32cPortable(0, all.first(size))) << size;
    const size_t half = size / 3;
    EXPECT_EQ(crc, ExtendCrc32c(Crc32c(all.first(half)),
                                all.subspan(half, size - half)));
  }
}

TEST(Crc32cTest, EveryFlippedBitIsSeen) {
  std::vector<std::byte> bytes(64, std::byte{0x5a});
  const uint32_t whole = Crc32c(bytes);
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    const std::byte mask = std::byte{1} << (bit % 8);
    bytes[bit / 8] ^= mask;
    EXPECT_NE(Crc32c(bytes), whole) << bit;
    bytes[bit / 8] ^= mask;
  }
}

}  // namespace
}  // namespace caravan
