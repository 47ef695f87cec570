#include "common/text/tokenizer_model.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::text {

void GrowTo(TokenId id, TokenizerModel* model) {
  if (id < model->vocabulary.size()) return;
  model->vocabulary.tokens.resize(id + 1, {"", TokenKind::kUnused});
  model->pieces.resize(id + 1);
}

void AddToken(AddedToken token, TokenizerModel* model) {
  GrowTo(token.id, model);
  TokenEntry& entry = model->vocabulary.tokens[token.id];
  entry.bytes = token.name;
  entry.kind = token.special ? TokenKind::kSpecial : TokenKind::kNormal;
  if (token.special) model->pieces[token.id].clear();
  model->added_tokens.push_back(std::move(token));
}

void KeepLastOfEachName(std::vector<AddedToken>* tokens) {
  absl::flat_hash_set<std::string> later;
  std::vector<AddedToken> kept;
  for (auto token = tokens->rbegin(); token != tokens->rend(); ++token) {
    if (later.insert(token->name).second) kept.push_back(std::move(*token));
  }
  std::reverse(kept.begin(), kept.end());
  *tokens = std::move(kept);
}

std::optional<TokenId> FindByName(const TokenizerModel& model,
                                  std::string_view name) {
  if (name.empty()) return std::nullopt;
  const auto& added = model.added_tokens;
  const auto known =
      std::find_if(added.rbegin(), added.rend(),
                   [&](const AddedToken& token) { return token.name == name; });
  if (known != added.rend()) return known->id;
  const auto it = std::find(model.pieces.begin(), model.pieces.end(), name);
  if (it == model.pieces.end()) return std::nullopt;
  return static_cast<TokenId>(it - model.pieces.begin());
}

std::string WithSpaces(std::string_view piece) {
  std::string out;
  while (!piece.empty()) {
    const bool space = piece.starts_with(kVisibleSpace);
    if (space) {
      out.push_back(' ');
    } else {
      out.push_back(piece.front());
    }
    piece.remove_prefix(space ? kVisibleSpace.size() : 1);
  }
  return out;
}

absl::Status FileError(std::string_view file, std::string_view what) {
  return MakeError(Reason::kModelFileInvalid, StrCat(file, ": ", what),
                   {{"file", std::string(file)}});
}

}  // namespace caravan::text
