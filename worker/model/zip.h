// The directory of a ZIP archive whose members are stored as they are, as
// PyTorch writes them; ZIP64 included. What the archive claims is checked
// before it is believed.
#ifndef CARAVAN_WORKER_MODEL_ZIP_H_
#define CARAVAN_WORKER_MODEL_ZIP_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan::worker {

struct ZipMember {
  std::string name;
  uint64_t offset = 0;  // of its first byte in the archive
  uint64_t bytes = 0;
};

// Whether the bytes begin as an archive does.
bool LooksLikeZip(std::span<const std::byte> content);

// The members in the order of their offsets. Errors (kModelFileInvalid) name
// `file`, member and offset: a directory that is missing or cut off, members
// that are compressed or encrypted, that share a name or bytes, or that reach
// past the directory. Checksums are not computed: the weights id covers the
// bytes.
absl::StatusOr<std::vector<ZipMember>> ParseZip(
    std::span<const std::byte> content, const std::string& file);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_ZIP_H_
