#include "worker/model/hashing.h"

#include <openssl/sha.h>
#include <xxhash.h>

#include <array>
#include <cstdint>

#include "common/status/errors.h"
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

absl::Status WeightsListing::Join(std::string_view listing) {
  while (!listing.empty()) {
    const size_t end = listing.find('\n');
    const size_t tab = listing.find('\t');
    if (end == std::string_view::npos || tab >= end || tab == 0) {
      return MakeError(Reason::kModelFileInvalid,
                       "a line of a weights listing must be a tensor's name, "
                       "type, shape and hash");
    }
    const std::string name(listing.substr(0, tab));
    const std::string line(listing.substr(0, end + 1));
    const auto [found, added] = lines_.try_emplace(name, line);
    if (!added && found->second != line) {
      return MakeError(
          Reason::kIdentityMismatch,
          StrCat("tensor ", name, " must be the same in every stage; got ",
                 line.substr(0, end), " and ",
                 found->second.substr(0, found->second.size() - 1)),
          {{"tensor", name}});
    }
    listing.remove_prefix(end + 1);
  }
  return absl::OkStatus();
}

std::string WeightsListing::Listing() const {
  std::string listing;
  for (const auto& [name, line] : lines_) listing += line;
  return listing;
}

}  // namespace caravan::worker
