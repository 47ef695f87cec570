#include "common/text/formed_characters.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <span>

#include "common/text/utf8.h"

namespace caravan::text {
namespace {

constexpr uint32_t kCodePoints = 0x10000;  // later ones stay bytes

bool IsContinuation(char c) { return (c & 0xC0) == 0x80; }

// What a character's bytes become by themselves.
struct Formed {
  TokenId symbol = -1;
  uint32_t rank = 0;  // greatest of its merges
};

std::optional<Formed> Form(std::string_view character, const MergeTable& merges,
                           const std::array<TokenId, 256>& byte_symbols) {
  std::vector<TokenId> symbols;
  for (const char c : character) {
    symbols.push_back(byte_symbols[static_cast<unsigned char>(c)]);
  }
  Formed formed;
  while (symbols.size() > 1) {
    const MergeTable::Merge* best = nullptr;
    size_t at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const MergeTable::Merge* const merge =
          merges.Find(symbols[i], symbols[i + 1]);
      if (merge == nullptr || (best != nullptr && best->rank <= merge->rank)) {
        continue;
      }
      best = merge;
      at = i;
    }
    if (best == nullptr) return std::nullopt;
    formed.rank = std::max(formed.rank, best->rank);
    symbols[at] = best->result;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
  formed.symbol = symbols[0];
  return formed;
}

// Calls visit(offset, size) for every whole character of a piece, which may
// begin and end inside of one.
template <typename Visit>
void ForEachWhole(std::string_view piece, const Visit& visit) {
  size_t i = 0;
  while (i < piece.size() && IsContinuation(piece[i])) ++i;
  while (i < piece.size()) {
    const auto size = static_cast<size_t>(Utf8Size(piece[i]));
    if (i + size > piece.size()) return;
    visit(i, size);
    i += size;
  }
}

uint32_t CodePoint(std::string_view character) {
  const Utf8Char c = DecodeUtf8(character);
  return c.kind == Utf8Char::Kind::kValid &&
                 c.size == static_cast<int>(character.size())
             ? c.code_point
             : 0;
}

}  // namespace

FormedCharacters::FormedCharacters(const std::vector<std::string>& pieces,
                                   const std::vector<MergePair>& pairs,
                                   const MergeTable& merges,
                                   const std::array<TokenId, 256>& byte_symbols)
    : symbols_(kCodePoints, -1) {
  std::vector<uint32_t> ranks(kCodePoints);
  for (const std::string& piece : pieces) {
    AddBorders(piece);
    if (piece.size() < 2 || piece.size() > 4) continue;
    const uint32_t code_point = CodePoint(piece);
    if (code_point < 0x80 || code_point >= kCodePoints) continue;
    const std::optional<Formed> formed = Form(piece, merges, byte_symbols);
    if (!formed) continue;
    symbols_[code_point] = formed->symbol;
    ranks[code_point] = formed->rank;
  }
  for (const MergePair& pair : pairs) {
    const std::string_view result =
        static_cast<size_t>(pair.result) < pieces.size()
            ? std::string_view(pieces[static_cast<size_t>(pair.result)])
            : std::string_view();
    ForEachWhole(result, [&](size_t offset, size_t size) {
      if (size == 1 || size == result.size()) return;
      const uint32_t c = CodePoint(result.substr(offset, size));
      if (c < kCodePoints && pair.rank <= ranks[c]) symbols_[c] = -1;
    });
  }
}

// Remembers the borders that the piece reaches over with a part of a character.
void FormedCharacters::AddBorders(std::string_view piece) {
  for (size_t i = 1; i < piece.size(); ++i) {
    if (IsContinuation(piece[i])) continue;
    size_t begin = i - 1;
    while (begin > 0 && IsContinuation(piece[begin])) --begin;
    const std::string_view left = piece.substr(begin, i - begin);
    const bool left_whole = !IsContinuation(left[0]) &&
                            Utf8Size(left[0]) == static_cast<int>(left.size());
    const auto size = static_cast<size_t>(Utf8Size(piece[i]));
    const bool right_whole = i + size <= piece.size();
    if (left_whole && right_whole) continue;
    broken_bytes_.set(static_cast<unsigned char>(left.back()) * 256u +
                      static_cast<unsigned char>(piece[i]));
    broken_.Add(left_whole ? static_cast<TokenId>(CodePoint(left))
                           : kByte | static_cast<unsigned char>(left.back()),
                right_whole
                    ? static_cast<TokenId>(CodePoint(piece.substr(i, size)))
                    : kByte | static_cast<unsigned char>(piece[i]));
  }
}

FormedCharacters::Character FormedCharacters::At(std::string_view text,
                                                 size_t offset) {
  Character c;
  c.code_point = DecodeValidUtf8(text.data() + offset, &c.size);
  c.first = static_cast<uint8_t>(text[offset]);
  c.last = static_cast<uint8_t>(text[offset + static_cast<size_t>(c.size) - 1]);
  return c;
}

bool FormedCharacters::IsBroken(const Character& left,
                                const Character& right) const {
  if (!broken_bytes_[left.last * 256u + right.first]) return false;
  const auto left_whole = static_cast<TokenId>(left.code_point);
  const auto right_whole = static_cast<TokenId>(right.code_point);
  return broken_.MayHave(left_whole, kByte | right.first) ||
         broken_.MayHave(kByte | left.last, right_whole) ||
         broken_.MayHave(kByte | left.last, kByte | right.first);
}

void FormedCharacters::AppendSymbols(
    std::string_view text, const std::array<TokenId, 256>& byte_symbols,
    std::vector<TokenId>* symbols) const {
  bool left_broken = false;
  Character next = text.empty() ? Character() : At(text, 0);
  for (size_t offset = 0; offset < text.size();) {
    const Character c = next;
    const size_t end = offset + static_cast<size_t>(c.size);
    bool right_broken = false;
    if (end < text.size()) {
      next = At(text, end);
      right_broken = (c.size > 1 || next.size > 1) && IsBroken(c, next);
    }
    const TokenId whole = c.size == 1 ? -1 : SymbolOf(c.code_point);
    if (whole >= 0 && !left_broken && !right_broken) {
      symbols->push_back(whole);
    } else {
      for (size_t i = offset; i < end; ++i) {
        symbols->push_back(byte_symbols[static_cast<unsigned char>(text[i])]);
      }
    }
    left_broken = right_broken;
    offset = end;
  }
}

}  // namespace caravan::text
