// The tokens of a text with the bytes of it that each stands for.
#ifndef CARAVAN_SERVICES_CLI_TOKEN_LISTING_H_
#define CARAVAN_SERVICES_CLI_TOKEN_LISTING_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/vocabulary.h"

namespace caravan::cli {

// Bytes [begin, end) of the text; nothing (begin == end) for a token that the
// text does not have, such as BOS or SentencePiece's leading space.
struct ListedToken {
  text::TokenId id = 0;
  std::string piece;  // what the token decodes to
  bool special = false;
  size_t begin = 0;
  size_t end = 0;
};

// Lays the pieces along the text. A token without bytes of its own there (an
// unknown character) covers what lies before the next one. Ids outside the
// vocabulary have empty pieces.
std::vector<ListedToken> ListTokens(std::string_view text,
                                    std::span<const text::TokenId> ids,
                                    const text::Vocabulary& vocabulary);

// The piece in quotes on one line: control characters and bytes that are not
// UTF-8 as "\n" and "\xE2".
std::string Quoted(std::string_view piece);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_TOKEN_LISTING_H_
