// Identity of weights (DESIGN.md 1.2).
#ifndef CARAVAN_WORKER_MODEL_HASHING_H_
#define CARAVAN_WORKER_MODEL_HASHING_H_

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "worker/model/safetensors.h"

namespace caravan::worker {

// SHA-256 in lower-case hex.
std::string Sha256Hex(std::string_view bytes);

// XXH3-128 in lower-case hex, canonical (big-endian) byte order.
std::string Xxh3Hex(std::span<const std::byte> bytes);

// Collects a line per tensor, "NAME\tDTYPE\tROWS,COLS\tXXH3\n", and hashes the
// lines sorted by name. Not thread-safe.
class WeightsListing {
 public:
  // Reads all bytes of the tensor.
  void Add(const TensorRecord& tensor);

  // Adds the lines of another part's Listing(). Errors: kModelFileInvalid for
  // lines that are none, kIdentityMismatch naming the tensor that is in both
  // and differs; then only part of them was added.
  absl::Status Join(std::string_view listing);

  // Whether the tensor was added.
  bool Has(const std::string& name) const { return lines_.contains(name); }
  size_t size() const { return lines_.size(); }

  // The sorted lines, and their SHA-256: the weights id.
  std::string Listing() const;
  std::string Id() const { return Sha256Hex(Listing()); }

 private:
  std::map<std::string, std::string> lines_;  // by tensor name
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_HASHING_H_
