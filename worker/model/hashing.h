// Identity of weights (DESIGN.md 1.2).
#ifndef CARAVAN_WORKER_MODEL_HASHING_H_
#define CARAVAN_WORKER_MODEL_HASHING_H_

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>

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

  // The sorted lines, and their SHA-256: the weights id.
  std::string Listing() const;
  std::string Id() const { return Sha256Hex(Listing()); }

 private:
  std::map<std::string, std::string> lines_;  // by tensor name
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_HASHING_H_
