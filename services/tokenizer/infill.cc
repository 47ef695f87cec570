#include "services/tokenizer/infill.h"

#include <algorithm>
#include <optional>
#include <string>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::tokenizer {
namespace {

using text::TokenId;

// A character that merges with nothing after it: in front of a text it takes
// the leading space away from it.
constexpr std::string_view kGuard = "\xE2\x98\xBA";  // U+263A

absl::StatusOr<std::vector<TokenId>> EncodeText(
    const text::Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.Encode(text, {.add_special_tokens = false});
}

// The ids of a text in the middle of another one: without a leading space.
absl::StatusOr<std::vector<TokenId>> EncodeInside(
    const text::Tokenizer& tokenizer, std::string_view text) {
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<TokenId> guard,
                           EncodeText(tokenizer, kGuard));
  CARAVAN_ASSIGN_OR_RETURN(std::vector<TokenId> ids,
                           EncodeText(tokenizer, StrCat(kGuard, text)));
  const size_t guard_size = std::min(guard.size(), ids.size());
  ids.erase(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(guard_size));
  return ids;
}

void Append(const std::vector<TokenId>& from, std::vector<TokenId>* to) {
  to->insert(to->end(), from.begin(), from.end());
}

}  // namespace

absl::StatusOr<std::vector<TokenId>> EncodeInfill(
    const text::Tokenizer& tokenizer, std::string_view prefix,
    std::string_view suffix, InfillOrder order) {
  const text::Vocabulary& vocabulary = tokenizer.vocabulary();
  if (!vocabulary.infill) {
    return UnsupportedError(
        "suffix",
        "the model has no tokens for filling in (<PRE>, <SUF>, <MID>, <EOT>)");
  }
  const text::InfillTokens& tokens = *vocabulary.infill;
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<TokenId> before,
                           EncodeText(tokenizer, prefix));
  CARAVAN_ASSIGN_OR_RETURN(const std::vector<TokenId> after,
                           EncodeInside(tokenizer, suffix));
  std::vector<TokenId> ids;
  if (vocabulary.bos_id) ids.push_back(*vocabulary.bos_id);
  ids.push_back(tokens.prefix);
  if (order == InfillOrder::kPrefixSuffixMiddle) Append(before, &ids);
  ids.push_back(tokens.suffix);
  Append(after, &ids);
  ids.push_back(tokens.middle);
  if (order == InfillOrder::kSuffixPrefixMiddle) Append(before, &ids);
  return ids;
}

}  // namespace caravan::tokenizer
