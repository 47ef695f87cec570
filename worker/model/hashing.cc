#include "worker/model/hashing.h"

#include <openssl/sha.h>
#include <xxhash.h>

#include <array>
#include <cstdint>

#include "common/strings.h"

namespace caravan::worker {
namespace {

std::string Hex(std::span<const uint8_t> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

std::string Sha256Hex(std::string_view bytes) {
  std::array<uint8_t, SHA256_DIGEST_LENGTH> digest;
  SHA256(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(),
         digest.data());
  return Hex(digest);
}

std::string Xxh3Hex(std::span<const std::byte> bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical,
                           XXH3_128bits(bytes.data(), bytes.size()));
  return Hex(canonical.digest);
}

void WeightsListing::Add(const TensorRecord& tensor) {
  std::string line = StrCat(tensor.name, "\t", tensor.dtype_name, "\t");
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    StrAppend(&line, i > 0 ? "," : "", tensor.shape[i]);
  }
  StrAppend(&line, "\t", Xxh3Hex({tensor.data, tensor.bytes}), "\n");
  lines_[tensor.name] = std::move(line);
}

std::string WeightsListing::Listing() const {
  std::string listing;
  for (const auto& [name, line] : lines_) listing += line;
  return listing;
}

}  // namespace caravan::worker
