#include "common/kv/block_hash.h"

#include <xxhash.h>

#include <algorithm>
#include <cstddef>

namespace caravan::kv {
namespace {

// Version of what is hashed below. Routers and workers of two versions would
// only miss each other's blocks.
constexpr std::string_view kRootDomain = "caravan/kv/v1";

void StoreU32(uint32_t value, uint8_t* out) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<uint8_t>(value >> (8 * i));
}

void AppendU32(uint32_t value, std::string& out) {
  uint8_t bytes[4];
  StoreU32(value, bytes);
  out.append(reinterpret_cast<const char*>(bytes), sizeof(bytes));
}

void AppendPart(std::string_view part, std::string& out) {
  AppendU32(static_cast<uint32_t>(part.size()), out);
  out.append(part);
}

BlockHash HashBytes(const void* data, size_t size) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, size));
  BlockHash hash;
  std::copy_n(canonical.digest, hash.bytes.size(), hash.bytes.begin());
  return hash;
}

}  // namespace

std::string BlockHash::ToHex() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const uint8_t byte : bytes) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

std::optional<BlockHash> BlockHash::FromBytes(std::string_view bytes) {
  BlockHash hash;
  if (bytes.size() != hash.bytes.size()) return std::nullopt;
  std::copy(bytes.begin(), bytes.end(), hash.bytes.begin());
  return hash;
}

BlockHash HashRoot(const HashRootParts& parts) {
  std::string packed;
  for (const std::string_view part :
       {kRootDomain, parts.weights_id, parts.numerics_class, parts.fingerprint,
        parts.adapter_id, parts.tenant_salt}) {
    AppendPart(part, packed);
  }
  AppendU32(parts.length_salt, packed);
  return HashBytes(packed.data(), packed.size());
}

BlockHash HashBlock(const BlockHash& parent, std::span<const int32_t> ids) {
  std::array<uint8_t, 16 + 4 * kBlockTokens> packed = {};
  std::copy(parent.bytes.begin(), parent.bytes.end(), packed.begin());
  const size_t count = std::min<size_t>(ids.size(), kBlockTokens);
  for (size_t i = 0; i < count; ++i) {
    StoreU32(static_cast<uint32_t>(ids[i]), packed.data() + 16 + 4 * i);
  }
  return HashBytes(packed.data(), 16 + 4 * count);
}

std::vector<BlockHash> HashChain(const BlockHash& root,
                                 std::span<const int32_t> ids) {
  std::vector<BlockHash> chain;
  chain.reserve(ids.size() / kBlockTokens);
  BlockHash parent = root;
  for (size_t begin = 0; begin + kBlockTokens <= ids.size();
       begin += kBlockTokens) {
    parent = HashBlock(parent, ids.subspan(begin, kBlockTokens));
    chain.push_back(parent);
  }
  return chain;
}

uint32_t LengthSalt(int32_t prompt_length, int32_t unscaled_context) {
  const bool matters = unscaled_context > 0 && prompt_length > unscaled_context;
  return matters ? static_cast<uint32_t>(prompt_length) : 0;
}

}  // namespace caravan::kv
