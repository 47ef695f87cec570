// Weights published as files XOR-ed with files of the base.
#ifndef CARAVAN_WORKER_MODEL_XOR_DELTA_H_
#define CARAVAN_WORKER_MODEL_XOR_DELTA_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caravan::worker {

struct XorReport {
  int checked_files = 0;  // NAME.SHA256.enc, whose content was verified
  int xored_files = 0;    // those that the base has under the same name
  int copied_files = 0;   // the others, as they are
  uint64_t bytes = 0;     // written
};

// Undoes the differences of a file or of every file in a directory, into the
// directory `target`, which must be empty or new:
//
//   NAME.SHA256.enc  (BELLE) 32 bytes, the SHA-256 of the result, then the
//                    result XOR-ed with the key, `base` or, of a directory, its
//                    consolidated.00.pth. Both are read in chunks of 10 MiB;
//                    the key's last, short chunk is repeated over its chunk of
//                    the result, then the key begins again. Written as NAME.
//   NAME             XOR-ed with the base's file of that name, what is longer
//                    than it as it is; copied where the base has none.
//
// Errors (kModelFileInvalid) name the file: sums that differ (the result is
// removed), compressed differences, an empty key.
absl::StatusOr<XorReport> ApplyXor(const std::string& base,
                                   const std::string& delta,
                                   const std::string& target);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_XOR_DELTA_H_
