// The Unicode classes that pre-tokenizer patterns speak of.
#ifndef CARAVAN_COMMON_TEXT_UNICODE_CLASS_H_
#define CARAVAN_COMMON_TEXT_UNICODE_CLASS_H_

#include <cstdint>

namespace caravan::text {

enum class CharClass : uint8_t {
  kOther,       // punctuation, symbols, marks, controls, unassigned
  kLetter,      // general category L*
  kNumber,      // general category N*
  kWhiteSpace,  // property White_Space
};

// The class of every code point, for loops. Thread-safe.
const CharClass* CharClasses();

// Thread-safe.
CharClass ClassOf(uint32_t code_point);

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_UNICODE_CLASS_H_
