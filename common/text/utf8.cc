#include "common/text/utf8.h"

#include <algorithm>
#include <cstring>

namespace caravan::text {
namespace {

// Size and range of the second byte for one lead byte (table 3-7 of the
// Unicode standard); size 0: never begins a character.
struct Lead {
  int size;
  uint8_t second_least;
  uint8_t second_most;
};

// Bytes below 0x80 that the text begins with, in steps of eight.
size_t AsciiPrefix(std::string_view bytes) {
  size_t size = 0;
  for (; size + 8 <= bytes.size(); size += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + size, sizeof(word));
    if ((word & 0x8080808080808080) != 0) break;
  }
  return size;
}

// A character of U+1000 to U+CFFF or U+E000 to U+FFFF, where all second bytes
// are allowed.
bool IsPlainThreeByte(std::string_view bytes) {
  if (bytes.size() < 3) return false;
  const auto lead = static_cast<uint8_t>(bytes[0]);
  return lead > 0xE0 && lead < 0xF0 && lead != 0xED &&
         (bytes[1] & 0xC0) == 0x80 && (bytes[2] & 0xC0) == 0x80;
}

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Char DecodeUtf8(std::string_view bytes) {
  const auto at = [&](int i) { return static_cast<uint8_t>(bytes[i]); };
  const Lead lead = LeadOf(at(0));
  if (lead.size == 0) return {Utf8Char::Kind::kInvalid, 0, 1};
  if (lead.size == 1) return {Utf8Char::Kind::kValid, at(0), 1};
  uint32_t code_point = at(0) & (0x7F >> lead.size);
  const int available =
      static_cast<int>(std::min(bytes.size(), static_cast<size_t>(lead.size)));
  for (int i = 1; i < available; ++i) {
    const uint8_t least = i == 1 ? lead.second_least : 0x80;
    const uint8_t most = i == 1 ? lead.second_most : 0xBF;
    if (at(i) < least || at(i) > most) return {Utf8Char::Kind::kInvalid, 0, i};
    code_point = code_point << 6 | (at(i) & 0x3F);
  }
  if (available < lead.size) {
    return {Utf8Char::Kind::kIncomplete, 0, available};
  }
  return {Utf8Char::Kind::kValid, code_point, lead.size};
}

std::optional<size_t> FirstInvalidUtf8(std::string_view bytes) {
  size_t offset = 0;
  while (offset < bytes.size()) {
    if (static_cast<uint8_t>(bytes[offset]) < 0x80) {
      offset += std::max<size_t>(1, AsciiPrefix(bytes.substr(offset)));
      continue;
    }
    if (IsPlainThreeByte(bytes.substr(offset))) {
      offset += 3;
      continue;
    }
    const Utf8Char c = DecodeUtf8(bytes.substr(offset));
    if (c.kind != Utf8Char::Kind::kValid) return offset;
    offset += c.size;
  }
  return std::nullopt;
}

void AppendUtf8(uint32_t code_point, std::string* out) {
  const auto put = [out](uint32_t byte) {
    out->push_back(static_cast<char>(byte));
  };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

std::string ReplaceInvalidUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Char c = DecodeUtf8(bytes);
    out.append(c.kind == Utf8Char::Kind::kValid ? bytes.substr(0, c.size)
                                                : kReplacementCharacter);
    bytes.remove_prefix(c.size);
  }
  return out;
}

}  // namespace caravan::text
