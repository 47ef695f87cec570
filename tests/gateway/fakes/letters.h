// A vocabulary whose tokens are bytes, so that tests can read ids.
#ifndef CARAVAN_TESTS_GATEWAY_FAKES_LETTERS_H_
#define CARAVAN_TESTS_GATEWAY_FAKES_LETTERS_H_

#include <string>
#include <string_view>
#include <vector>

#include "common/text/vocabulary.h"

namespace caravan::gateway::testing {

inline constexpr text::TokenId kBos = 256;
inline constexpr text::TokenId kEos = 257;
inline constexpr text::TokenId kThe = 258;    // " the"
inline constexpr text::TokenId kSmile = 259;  // first two bytes of U+1F600
inline constexpr int kLettersSize = 260;

// Ids below 256 are the bytes themselves.
inline text::Vocabulary MakeLetters() {
  text::Vocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte) {
    vocabulary.tokens.push_back(
        {std::string(1, static_cast<char>(byte)), text::TokenKind::kNormal});
  }
  vocabulary.tokens.push_back({"<s>", text::TokenKind::kSpecial});
  vocabulary.tokens.push_back({"</s>", text::TokenKind::kSpecial});
  vocabulary.tokens.push_back({" the", text::TokenKind::kNormal});
  vocabulary.tokens.push_back({"\xF0\x9F", text::TokenKind::kNormal});
  vocabulary.bos_id = kBos;
  vocabulary.eos_ids = {kEos};
  return vocabulary;
}

inline std::vector<text::TokenId> IdsOf(std::string_view text) {
  std::vector<text::TokenId> ids;
  for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
  return ids;
}

}  // namespace caravan::gateway::testing

#endif  // CARAVAN_TESTS_GATEWAY_FAKES_LETTERS_H_
