// Characters that byte-level merging surely makes whole before it does anything
// else with their bytes, so that it can begin with them: a third of the work
// for scripts of three bytes a character.
#ifndef CARAVAN_COMMON_TEXT_FORMED_CHARACTERS_H_
#define CARAVAN_COMMON_TEXT_FORMED_CHARACTERS_H_

#include <array>
#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/merge_table.h"
#include "common/text/vocabulary.h"

namespace caravan::text {

// A character Y may stand as one symbol from the beginning where
//   1. its bytes alone merge into one token, by merges of rank at most f;
//   2. every merge that uses a token in which Y stands whole beside something
//      else has a rank above f, so that nothing happens to Y before it is made;
//   3. no piece of the vocabulary reaches over one of Y's borders in the text
//      with a part of Y or of its neighbour only, so that nothing else happens
//      to its bytes.
// 1 and 2 are of the character, 3 of the place. Then merging from Y and from
// its bytes gives the same.
//
// Immutable; thread-safe.
class FormedCharacters {
 public:
  FormedCharacters() = default;

  // `pieces` are byte strings by token id; `byte_symbols` what merging begins
  // with.
  FormedCharacters(const std::vector<std::string>& pieces,
                   const std::vector<MergePair>& pairs,
                   const MergeTable& merges,
                   const std::array<TokenId, 256>& byte_symbols);

  // Appends the symbols of valid UTF-8 `text`.
  void AppendSymbols(std::string_view text,
                     const std::array<TokenId, 256>& byte_symbols,
                     std::vector<TokenId>* symbols) const;

  // The symbol of a character of 1 and 2, or a negative number.
  TokenId SymbolOf(uint32_t code_point) const {
    return code_point < symbols_.size() ? symbols_[code_point] : -1;
  }

 private:
  // A character and where it lies.
  struct Character {
    uint32_t code_point = 0;
    int size = 0;
    uint8_t first = 0;
    uint8_t last = 0;
  };
  static Character At(std::string_view text, size_t offset);
  void AddBorders(std::string_view piece);
  bool IsBroken(const Character& left, const Character& right) const;

  std::vector<TokenId> symbols_;  // by code point
  // Borders of 3: (last byte or left character, first byte or right one), bytes
  // being told apart by kByte.
  static constexpr TokenId kByte = 1 << 24;
  PairFilter broken_ = PairFilter(15);
  std::bitset<256 * 256> broken_bytes_;  // by last byte and first: any of them
};

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_FORMED_CHARACTERS_H_
