// UTF-8 as the tokenizers need it: strict decoding (Unicode 3.9: no overlong
// forms, no surrogates, nothing above U+10FFFF) and the "replace" rule.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_COMMON_TEXT_UTF8_H_
#define CARAVAN_COMMON_TEXT_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace caravan::text {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// What stands at the beginning of some bytes.
struct Utf8Char {
  enum class Kind {
    kValid,       // `code_point`, `size` bytes
    kInvalid,     // `size` bytes are one maximal invalid part
    kIncomplete,  // all `size` bytes may begin a character; more are needed
  };
  Kind kind;
  uint32_t code_point;
  int size;  // bytes, at least 1
};

// `bytes` is not empty.
Utf8Char DecodeUtf8(std::string_view bytes);

// The character that valid UTF-8 begins with at `p`; its size in `*size`.
inline uint32_t DecodeValidUtf8(const char* p, int* size) {
  const auto at = [p](int i) { return static_cast<uint8_t>(p[i]); };
  if (at(0) < 0x80) {
    *size = 1;
    return at(0);
  }
  if (at(0) < 0xE0) {
    *size = 2;
    return (at(0) & 0x1Fu) << 6 | (at(1) & 0x3Fu);
  }
  if (at(0) < 0xF0) {
    *size = 3;
    return (at(0) & 0x0Fu) << 12 | (at(1) & 0x3Fu) << 6 | (at(2) & 0x3Fu);
  }
  *size = 4;
  return (at(0) & 0x07u) << 18 | (at(1) & 0x3Fu) << 12 | (at(2) & 0x3Fu) << 6 |
         (at(3) & 0x3Fu);
}

// Number of bytes of the character that begins with `lead`, in valid text.
inline int Utf8Size(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Offset of the first byte that does not belong to valid UTF-8.
std::optional<size_t> FirstInvalidUtf8(std::string_view bytes);

// Appends a code point, which is not a surrogate and at most U+10FFFF.
void AppendUtf8(uint32_t code_point, std::string* out);

// The text with U+FFFD for each maximal invalid part.
std::string ReplaceInvalidUtf8(std::string_view bytes);

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_UTF8_H_
