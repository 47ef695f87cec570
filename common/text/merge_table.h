// The merging core: which adjacent symbols become one, and in what order.
#ifndef CARAVAN_COMMON_TEXT_MERGE_TABLE_H_
#define CARAVAN_COMMON_TEXT_MERGE_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/text/vocabulary.h"

namespace caravan::text {

// Two adjacent symbols and what they become. A symbol is a token id, or an id
// above all tokens for a character that is no token by itself.
struct MergePair {
  TokenId left;
  TokenId right;
  TokenId result;
  uint32_t rank;  // lower merges first; equal ranks go from left to right
};

// A string that merging can make.
struct RankedPiece {
  TokenId id;
  std::string text;
  uint32_t rank;
};

// Every pair of symbols whose concatenation is one of `pieces`, with the rank
// of that piece, in ascending (rank, left, right): how tokenizers work whose
// files rank pieces, not pairs. `symbols` are all strings that may stand on
// either side. Pieces are cut at UTF-8 borders, or between any bytes with
// `bytes_are_symbols`. Error: kModelFileInvalid when the pieces are so long
// that cutting them all would take minutes.
inline constexpr int kMaxPieceBytes = 1024;
absl::StatusOr<std::vector<MergePair>> PairsOfPieces(
    const std::vector<RankedPiece>& pieces,
    const absl::flat_hash_map<std::string, TokenId>& symbols,
    bool bytes_are_symbols);

// Immutable; thread-safe.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    TokenId result;
  };

  explicit MergeTable(const std::vector<MergePair>& pairs);

  // What `left` and `right` become, or null.
  const Merge* Find(TokenId left, TokenId right) const;

  // Merges until no pair is left: always the pair of least rank, the leftmost
  // of equals. Negative symbols never merge. O(n log n).
  void Apply(std::vector<TokenId>* symbols) const;

 private:
  absl::flat_hash_map<uint64_t, Merge> merges_;  // key: left, right
};

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_MERGE_TABLE_H_
