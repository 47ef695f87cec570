// Text for properties that must hold for any text.
#ifndef CARAVAN_TESTS_COMMON_TEXT_GENERATED_TEXT_H_
#define CARAVAN_TESTS_COMMON_TEXT_GENERATED_TEXT_H_

#include <cstdint>
#include <random>
#include <string>

#include "common/text/utf8.h"

namespace caravan::text {

// Valid UTF-8 of up to `max_characters`: words, digits, runs of white space,
// punctuation and code points from everywhere.
inline std::string GenerateText(std::mt19937_64* random, int max_characters) {
  const auto below = [&](uint64_t limit) { return (*random)() % limit; };
  std::string text;
  const auto count = static_cast<int>(below(max_characters + 1));
  for (int i = 0; i < count; ++i) {
    uint32_t c = 0;
    switch (below(8)) {
      case 0:
        c = " \t\n\r'"[below(5)];
        break;
      case 1:
        c = static_cast<uint32_t>('0' + below(10));
        break;
      case 2:
        c = static_cast<uint32_t>(below(0x800));
        break;
      case 3:
        c = static_cast<uint32_t>(0x4E00 + below(0x100));
        break;
      case 4:
        c = static_cast<uint32_t>(below(0x110000));
        break;
      default:
        c = static_cast<uint32_t>('a' + below(26));
    }
    if (c >= 0xD800 && c < 0xE000) c = 0x1F600;
    if (c == 0x2581) c = '_';  // SentencePiece's space; not kept by design
    AppendUtf8(c, &text);
  }
  return text;
}

}  // namespace caravan::text

#endif  // CARAVAN_TESTS_COMMON_TEXT_GENERATED_TEXT_H_
