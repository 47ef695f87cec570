#include "common/text/infill_tokens.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

namespace caravan::text {
namespace {

// In the order of InfillTokens.
constexpr std::string_view kNames[] = {"\xE2\x96\x81<PRE>", "\xE2\x96\x81<SUF>",
                                       "\xE2\x96\x81<MID>",
                                       "\xE2\x96\x81<EOT>"};

// Merging may still pass through the piece; text does not end up with it.
void MakeControl(TokenId id, TokenizerModel* model) {
  model->vocabulary.tokens[id].kind = TokenKind::kSpecial;
  std::vector<TokenId>& unused = model->unused;
  const auto at = std::lower_bound(unused.begin(), unused.end(), id);
  if (at == unused.end() || *at != id) unused.insert(at, id);
}

}  // namespace

void MarkInfillTokens(TokenizerModel* model) {
  std::array<TokenId, 4> ids;
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::optional<TokenId> id = FindByName(*model, kNames[i]);
    if (!id) return;
    ids[i] = *id;
  }
  for (const TokenId id : ids) MakeControl(id, model);
  model->vocabulary.infill = InfillTokens{ids[0], ids[1], ids[2], ids[3]};
}

}  // namespace caravan::text
