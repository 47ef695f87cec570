#include "common/text/incremental_decoder.h"

#include <string_view>
#include <utility>

#include "common/text/utf8.h"

namespace caravan::text {
namespace {

// Moves all that is decided from `pending` to the result; an incomplete
// character at the end stays.
std::string TakeDecided(std::string* pending) {
  std::string out;
  std::string_view rest = *pending;
  while (!rest.empty()) {
    const Utf8Char c = DecodeUtf8(rest);
    if (c.kind == Utf8Char::Kind::kIncomplete) break;
    out.append(c.kind == Utf8Char::Kind::kValid ? rest.substr(0, c.size)
                                                : kReplacementCharacter);
    rest.remove_prefix(c.size);
  }
  pending->erase(0, pending->size() - rest.size());
  return out;
}

}  // namespace

IncrementalDecoder::IncrementalDecoder(const Vocabulary& vocabulary,
                                       bool skip_special_tokens)
    : vocabulary_(vocabulary), skip_special_tokens_(skip_special_tokens) {}

std::string IncrementalDecoder::Append(TokenId id) {
  if (id < 0 || id >= vocabulary_.size()) return "";
  const TokenEntry& token = vocabulary_.tokens[id];
  if (token.kind == TokenKind::kUnused) return "";
  if (token.kind == TokenKind::kSpecial && skip_special_tokens_) return "";
  std::string_view bytes = token.bytes;
  if (bytes.empty()) return "";
  if (at_start_ && vocabulary_.strip_leading_space && bytes.front() == ' ') {
    bytes.remove_prefix(1);
  }
  at_start_ = false;
  pending_.append(bytes);
  return TakeDecided(&pending_);
}

std::string IncrementalDecoder::Finish() {
  return ReplaceInvalidUtf8(std::exchange(pending_, {}));
}

std::string Decode(const Vocabulary& vocabulary, std::span<const TokenId> ids,
                   bool skip_special_tokens) {
  IncrementalDecoder decoder(vocabulary, skip_special_tokens);
  std::string text;
  for (const TokenId id : ids) text += decoder.Append(id);
  text += decoder.Finish();
  return text;
}

}  // namespace caravan::text
