#include "services/cli/token_listing.h"

#include <algorithm>
#include <array>

#include "common/text/utf8.h"

namespace caravan::cli {
namespace {

// The first place at or after `from` where `piece` stands; npos without one.
size_t FindPiece(std::string_view text, size_t from, std::string_view piece) {
  return piece.empty() ? std::string_view::npos : text.find(piece, from);
}

// Whether only spaces lie in between: a normalization may have dropped them.
bool OnlySpaces(std::string_view between) {
  return between.find_first_not_of(" \t\n\r") == std::string_view::npos;
}

class Aligner {
 public:
  Aligner(std::string_view text, std::vector<ListedToken>* tokens)
      : text_(text), tokens_(*tokens) {}

  void Run() {
    for (size_t i = 0; i < tokens_.size(); ++i) Place(i);
  }

 private:
  void Place(size_t i) {
    ListedToken& token = tokens_[i];
    token.begin = token.end = position_;
    if (token.piece.empty() || Take(token.piece, &token)) return;
    // The space that SentencePiece puts before a text.
    const bool leading_space = !token.special && token.piece.front() == ' ';
    if (leading_space && token.piece.size() == 1) return;
    if (leading_space && Take(token.piece.substr(1), &token)) return;
    if (!token.special) Cover(i);
  }

  bool Take(std::string_view piece, ListedToken* token) {
    const size_t at = FindPiece(text_, position_, piece);
    if (at == std::string_view::npos ||
        !OnlySpaces(text_.substr(position_, at - position_))) {
      return false;
    }
    token->begin = at;
    token->end = position_ = at + piece.size();
    return true;
  }

  // An unknown token covers what no token after it claims.
  void Cover(size_t i) {
    size_t next = text_.size();
    if (i + 1 < tokens_.size()) {
      next = std::min(next, FindPiece(text_, position_, tokens_[i + 1].piece));
    }
    tokens_[i].end = position_ = next;
  }

  const std::string_view text_;
  std::vector<ListedToken>& tokens_;
  size_t position_ = 0;
};

void AppendEscaped(unsigned char byte, std::string* out) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  *out += "\\x";
  *out += kHex[byte >> 4];
  *out += kHex[byte & 15];
}

}  // namespace

std::vector<ListedToken> ListTokens(std::string_view text,
                                    std::span<const text::TokenId> ids,
                                    const text::Vocabulary& vocabulary) {
  std::vector<ListedToken> tokens;
  tokens.reserve(ids.size());
  for (const text::TokenId id : ids) {
    ListedToken& token = tokens.emplace_back();
    token.id = id;
    if (id < 0 || id >= vocabulary.size()) continue;
    token.piece = vocabulary.tokens[id].bytes;
    token.special = vocabulary.tokens[id].kind == text::TokenKind::kSpecial;
  }
  Aligner(text, &tokens).Run();
  return tokens;
}

std::string Quoted(std::string_view piece) {
  std::string out = "\"";
  while (!piece.empty()) {
    const text::Utf8Char c = text::DecodeUtf8(piece);
    const bool valid = c.kind == text::Utf8Char::Kind::kValid;
    const size_t size = valid ? c.size : 1;
    const auto byte = static_cast<unsigned char>(piece.front());
    if (byte == '\n') {
      out += "\\n";
    } else if (byte == '"' || byte == '\\') {
      out += {'\\', static_cast<char>(byte)};
    } else if (!valid || byte < 0x20 || byte == 0x7F) {
      AppendEscaped(byte, &out);
    } else {
      out += piece.substr(0, size);
    }
    piece.remove_prefix(size);
  }
  return out + "\"";
}

}  // namespace caravan::cli
