// The merging core: which adjacent symbols become one, and in what order.
#ifndef CARAVAN_COMMON_TEXT_MERGE_TABLE_H_
#define CARAVAN_COMMON_TEXT_MERGE_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/text/hash_secret.h"
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

// A set of ordered pairs of symbols that may say yes for a pair it has not. 256
// KiB: it stays in the second-level cache where a table of all pairs does not.
class PairFilter {
 public:
  explicit PairFilter(int log2_bits = 21)
      : shift_(64 - log2_bits), bits_((size_t{1} << log2_bits) / 64) {}

  void Add(TokenId left, TokenId right) {
    const uint64_t bit = BitOf(left, right);
    bits_[bit / 64] |= uint64_t{1} << bit % 64;
  }
  bool MayHave(TokenId left, TokenId right) const {
    const uint64_t bit = BitOf(left, right);
    return (bits_[bit / 64] >> bit % 64 & 1) != 0;
  }

 private:
  uint64_t BitOf(TokenId left, TokenId right) const {
    const uint64_t key = static_cast<uint64_t>(static_cast<uint32_t>(left))
                             << 32 |
                         static_cast<uint32_t>(right);
    return PairHash(key) >> shift_;
  }
  int shift_;
  std::vector<uint64_t> bits_;
};

// Memory that merging uses again. Of one call.
struct MergeScratch {
  std::vector<int32_t> previous;
  std::vector<int32_t> next;
  std::vector<uint32_t> ranks;
  std::vector<TokenId> results;
  std::vector<uint64_t> heap;
};

// Immutable; thread-safe.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    TokenId result;
  };

  explicit MergeTable(const std::vector<MergePair>& pairs);

  // What `left` and `right` become, or null.
  const Merge* Find(TokenId left, TokenId right) const {
    if (left < 0 || right < 0) return nullptr;
    if (left < kDirect && right < kDirect) {
      const Merge& merge = direct_[left * kDirect + right];
      return merge.result < 0 ? nullptr : &merge;
    }
    if (!filter_.MayHave(left, right)) return nullptr;
    const uint64_t key = KeyOf(left, right);
    for (size_t i = PlaceOf(key);; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.key == key) return &slot.merge;
      if (slot.key == kEmpty) return nullptr;
    }
  }

  // Merges until no pair is left, and leaves the result in the first `*count`
  // symbols: always the pair of least rank, the leftmost
  // of equals. Negative symbols never merge. O(n log n). `scratch` may hold
  // anything. Every way gives the same; kShort is for up to kMostShort symbols.
  enum class Way { kBySize, kShort, kHeap, kBuckets };
  static constexpr size_t kMostShort = 24;
  void Apply(std::span<TokenId> symbols, MergeScratch* scratch, size_t* count,
             Way way = Way::kBySize) const;

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge = {};
  };

  static uint64_t KeyOf(TokenId left, TokenId right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
           static_cast<uint32_t>(right);
  }
  size_t PlaceOf(uint64_t key) const { return PairHash(key) >> shift_; }

  static constexpr TokenId kDirect = 256;

  std::vector<Merge>
      direct_;  // of symbols below kDirect; a negative result: no
  PairFilter filter_;
  std::vector<Slot> slots_;  // a power of two, at most half full
  size_t mask_ = 0;
  int shift_ = 63;
};

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_MERGE_TABLE_H_
