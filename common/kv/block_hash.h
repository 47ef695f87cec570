// Hashes by which KV blocks are routed and found (DESIGN.md 1.2). A hash never
// decides: on a hit the ids are compared before the block is trusted.
#ifndef CARAVAN_COMMON_KV_BLOCK_HASH_H_
#define CARAVAN_COMMON_KV_BLOCK_HASH_H_

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::kv {

// Tokens in one KV block.
inline constexpr int kBlockTokens = 16;

// XXH3-128 in canonical (big-endian) byte order.
struct BlockHash {
  std::array<uint8_t, 16> bytes = {};

  auto operator<=>(const BlockHash&) const = default;
  std::string ToHex() const;
  std::string ToBytes() const {
    return std::string(reinterpret_cast<const char*>(bytes.data()), 16);
  }
  // Nothing unless `bytes` has 16 bytes.
  static std::optional<BlockHash> FromBytes(std::string_view bytes);

  template <typename H>
  friend H AbslHashValue(H h, const BlockHash& hash) {
    return H::combine_contiguous(std::move(h), hash.bytes.data(), 16);
  }
};

// What the first parent stands for.
struct HashRootParts {
  std::string_view weights_id = {};  // 32 bytes
  std::string_view numerics_class = {};
  std::string_view fingerprint = {};  // 32 bytes
  std::string_view adapter_id = {};   // empty: none
  std::string_view tenant_salt = {};  // empty: shared
  // The original prompt's length where the state depends on it (dynamic NTK
  // beyond the unscaled context); 0: it does not.
  uint32_t length_salt = 0;
};

// XXH3-128 of "caravan/kv/v1" and the parts in order, each as its length (u32,
// little-endian) and bytes, then length_salt (u32): no two lists of parts
// collide by concatenation.
BlockHash HashRoot(const HashRootParts& parts);

// Hash of (parent, 16 little-endian u32 ids). `ids` has kBlockTokens entries.
BlockHash HashBlock(const BlockHash& parent, std::span<const int32_t> ids);

// Hashes of all full blocks of `ids`, in order.
std::vector<BlockHash> HashChain(const BlockHash& root,
                                 std::span<const int32_t> ids);

// The salt for a prompt of `prompt_length` tokens: the length when it is over
// `unscaled_context` (> 0), else 0.
uint32_t LengthSalt(int32_t prompt_length, int32_t unscaled_context);

}  // namespace caravan::kv

#endif  // CARAVAN_COMMON_KV_BLOCK_HASH_H_
