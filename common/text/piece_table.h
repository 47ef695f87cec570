// Look-up of short byte strings: which of a vocabulary's pieces a piece of text
// is, and what a word became before.
#ifndef CARAVAN_COMMON_TEXT_PIECE_TABLE_H_
#define CARAVAN_COMMON_TEXT_PIECE_TABLE_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/hash_secret.h"
#include "common/text/vocabulary.h"

namespace caravan::text {

// Up to 16 bytes of text in two words, from which, with the size, they can be
// told again; longer ones only by their hash.
struct PieceKey {
  static constexpr size_t kInlineBytes = 16;

  uint64_t low = 0;
  uint64_t high = 0;
  uint32_t size = 0;

  explicit PieceKey(std::string_view text)
      : size(static_cast<uint32_t>(text.size())) {
    const char* const p = text.data();
    if (size > kInlineBytes) {
      HashLong(p);
    } else if (size >= 8) {
      low = Load<uint64_t>(p);
      high = Load<uint64_t>(p + size - 8);
    } else if (size >= 4) {
      low = Load<uint32_t>(p);
      high = Load<uint32_t>(p + size - 4);
    } else if (size > 0) {
      low = static_cast<uint8_t>(p[0]) |
            static_cast<uint64_t>(static_cast<uint8_t>(p[size / 2])) << 8 |
            static_cast<uint64_t>(static_cast<uint8_t>(p[size - 1])) << 16;
    }
  }

  bool is_inline() const { return size <= kInlineBytes; }
  uint64_t Hash() const {
    return FoldedProduct(low ^ kHashSecret.first,
                         high ^ kHashSecret.second ^ size);
  }
  bool operator==(const PieceKey&) const = default;

 private:
  template <typename T>
  static T Load(const char* p) {
    T value;
    std::memcpy(&value, p, sizeof(value));
    return value;
  }
  void HashLong(const char* p) {
    low = kHashSecret.first;
    for (size_t i = 0; i + 16 <= size; i += 16) {
      low = FoldedProduct(Load<uint64_t>(p + i) ^ kHashSecret.second,
                          Load<uint64_t>(p + i + 8) ^ low);
    }
    low =
        FoldedProduct(Load<uint64_t>(p + size - 16) ^ kHashSecret.second, low);
    high = Load<uint64_t>(p + size - 8);
  }
};

// Ids by piece. Immutable after the last Add; then thread-safe.
class PieceTable {
 public:
  // Room for `count` pieces; drops what was there.
  void Reserve(size_t count) {
    size_t slots = 16;
    while (slots < 2 * count) slots *= 2;
    slots_.assign(slots, Slot());
    filter_.assign((size_t{1} << kLog2FilterBits) / 64, 0);
  }

  // The first id of a piece counts. Not empty; at most Reserve's count.
  void Add(std::string_view piece, TokenId id) {
    const PieceKey key(piece);
    const uint64_t hash = key.Hash();
    Slot& slot = slots_[Place(key, hash, piece)];
    if (slot.id != kNone) return;
    const uint64_t bit = hash >> (64 - kLog2FilterBits);
    filter_[bit / 64] |= uint64_t{1} << bit % 64;
    slot = {key.low, key.high, key.size, id, 0};
    if (key.is_inline()) return;
    slot.offset = static_cast<uint32_t>(long_pieces_.size());
    long_pieces_.append(piece);
  }

  // The id, or a negative number.
  TokenId Find(std::string_view piece) const {
    if (slots_.empty() || piece.empty()) return kNone;
    const PieceKey key(piece);
    const uint64_t hash = key.Hash();
    const uint64_t bit = hash >> (64 - kLog2FilterBits);
    if ((filter_[bit / 64] >> bit % 64 & 1) == 0) return kNone;
    return slots_[Place(key, hash, piece)].id;
  }

 private:
  static constexpr TokenId kNone = -1;
  // 128 KiB, which answer for most of what is no piece.
  static constexpr int kLog2FilterBits = 20;
  struct Slot {
    uint64_t low = 0;
    uint64_t high = 0;
    uint32_t size = 0;
    TokenId id = kNone;
    uint32_t offset = 0;  // in long_pieces_
  };

  // Where the piece is, or would be.
  size_t Place(const PieceKey& key, uint64_t hash,
               std::string_view piece) const {
    const size_t mask = slots_.size() - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
      const Slot& slot = slots_[i];
      if (slot.id == kNone) return i;
      if (slot.low != key.low || slot.high != key.high ||
          slot.size != key.size) {
        continue;
      }
      if (key.is_inline() ||
          piece == std::string_view(long_pieces_).substr(slot.offset, key.size))
        return i;
    }
  }

  std::vector<Slot> slots_;  // a power of two
  std::vector<uint64_t> filter_;
  std::string long_pieces_;
};

// What words of up to 16 bytes became; later ones push earlier ones out. Of one
// call: not thread-safe.
class WordCache {
 public:
  static constexpr size_t kMostIds = 7;

  WordCache() : slots_(kSlots) {}

  // Null where the word is not there.
  std::span<const TokenId> Find(const PieceKey& key) const {
    const Slot& slot = slots_[key.Hash() % kSlots];
    if (slot.count == 0 || slot.low != key.low || slot.high != key.high ||
        slot.size != key.size) {
      return {};
    }
    return {slot.ids.data(), slot.count};
  }
  // Keeps the word where it is short enough.
  void Put(const PieceKey& key, std::span<const TokenId> ids) {
    if (!key.is_inline() || ids.empty() || ids.size() > kMostIds) return;
    Slot& slot = slots_[key.Hash() % kSlots];
    slot.low = key.low;
    slot.high = key.high;
    slot.size = static_cast<uint8_t>(key.size);
    slot.count = static_cast<uint8_t>(ids.size());
    std::copy(ids.begin(), ids.end(), slot.ids.begin());
  }

 private:
  static constexpr size_t kSlots = 4096;
  struct Slot {
    uint64_t low = 0;
    uint64_t high = 0;
    std::array<TokenId, kMostIds> ids = {};
    uint8_t size = 0;
    uint8_t count = 0;  // 0: empty
  };
  std::vector<Slot> slots_;
};

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_PIECE_TABLE_H_
