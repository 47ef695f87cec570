// What every token id stands for, and how ids become text: all that a gateway
// needs to decode by itself.
#ifndef CARAVAN_COMMON_TEXT_VOCABULARY_H_
#define CARAVAN_COMMON_TEXT_VOCABULARY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace caravan::text {

using TokenId = int32_t;

// Values equal caravan.v1.TokenKind.
enum class TokenKind : uint8_t {
  kNormal = 1,
  kSpecial = 2,  // control; left out with skip_special_tokens
  kByte = 3,     // one byte of byte fallback
  kUnused = 4,   // decodes to nothing
};

struct TokenEntry {
  std::string bytes;  // what the token decodes to
  TokenKind kind = TokenKind::kNormal;
};

// Code Llama's tokens for filling in between two texts.
struct InfillTokens {
  TokenId prefix = 0;  // <PRE>
  TokenId suffix = 0;  // <SUF>
  TokenId middle = 0;  // <MID>
  TokenId end = 0;     // <EOT>: what was filled in is over
  bool operator==(const InfillTokens&) const = default;
};

// Plain data; const after loading.
struct Vocabulary {
  std::vector<TokenEntry> tokens;  // index is the token id
  // One leading space of the whole text is removed (SentencePiece's dummy
  // prefix).
  bool strip_leading_space = false;
  std::optional<TokenId> bos_id;
  std::vector<TokenId> eos_ids;  // ids that end a sequence, model's own first
  std::optional<InfillTokens> infill;  // where the model has all four

  int32_t size() const { return static_cast<int32_t>(tokens.size()); }
};

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_VOCABULARY_H_
