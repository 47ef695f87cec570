// What ids stand for, written down once more and without increments.
#ifndef CARAVAN_TESTS_PROPERTY_TEXT_BY_DEFINITION_H_
#define CARAVAN_TESTS_PROPERTY_TEXT_BY_DEFINITION_H_

#include <span>
#include <string>

#include "common/text/utf8.h"
#include "common/text/vocabulary.h"

namespace caravan::text {

// The bytes put together, one leading space gone where the vocabulary says so,
// U+FFFD for what is no UTF-8.
inline std::string TextByDefinition(const Vocabulary& vocabulary,
                                    std::span<const TokenId> ids,
                                    bool skip_special_tokens) {
  std::string bytes;
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocabulary.size()) continue;
    const TokenEntry& token = vocabulary.tokens[id];
    if (token.kind == TokenKind::kUnused) continue;
    if (token.kind == TokenKind::kSpecial && skip_special_tokens) continue;
    bytes += token.bytes;
  }
  if (vocabulary.strip_leading_space && bytes.starts_with(' ')) {
    bytes.erase(0, 1);
  }
  return ReplaceInvalidUtf8(bytes);
}

}  // namespace caravan::text

#endif  // CARAVAN_TESTS_PROPERTY_TEXT_BY_DEFINITION_H_
