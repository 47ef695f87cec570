#include "common/text/wire_reader.h"

#include <bit>
#include <cstring>

namespace caravan::text {
namespace {

constexpr int kVarint = 0;
constexpr int kFixed64 = 1;
constexpr int kBytes = 2;
constexpr int kFixed32 = 5;

}  // namespace

bool WireReader::Next() {
  if (!ok_ || rest_.empty()) return false;
  ok_ = ReadField();
  return ok_;
}

bool WireReader::ReadField() {
  varint_ = 0;
  fixed32_ = 0;
  bytes_ = {};
  uint64_t key = 0;
  if (!ReadVarint(&key) || key >> 3 == 0 || key >> 3 > 0x1FFFFFFF) {
    return false;
  }
  field_ = static_cast<uint32_t>(key >> 3);
  std::string_view fixed;
  uint64_t size = 0;
  switch (key & 7) {
    case kVarint:
      return ReadVarint(&varint_);
    case kFixed64:
      return Take(8, &fixed);
    case kBytes:
      return ReadVarint(&size) && size <= rest_.size() && Take(size, &bytes_);
    case kFixed32:
      if (!Take(4, &fixed)) return false;
      std::memcpy(&fixed32_, fixed.data(), 4);
      return true;
    default:
      return false;
  }
}

bool WireReader::ReadVarint(uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) return false;
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    *value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

bool WireReader::Take(size_t size, std::string_view* out) {
  if (size > rest_.size()) return false;
  *out = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return true;
}

float WireReader::fixed32() const { return std::bit_cast<float>(fixed32_); }

}  // namespace caravan::text
