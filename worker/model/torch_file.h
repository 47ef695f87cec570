// Files that PyTorch's `save` writes: a pickle of names and tensors beside the
// raw bytes of their storages, in a ZIP archive or, in the oldest files, one
// after the other.
#ifndef CARAVAN_WORKER_MODEL_TORCH_FILE_H_
#define CARAVAN_WORKER_MODEL_TORCH_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/safetensors.h"

namespace caravan::worker {

// A tensor that lies in the file's bytes. Types have their safetensors names.
struct TorchTensor {
  // Its bytes are what shape and type say; where there are strides, they are
  // not what lies at `data`.
  TensorRecord record;
  // In elements, where the tensor is not row-major; else empty.
  std::vector<int64_t> strides;
};

// The tensors of a file whose bytes are `content`, in the file's order: those
// of the dict that it holds, or of the dict under "model", "module" or
// "state_dict" in it where the outer one has none. Values that are no tensors
// are left out. Errors (kModelFileInvalid) name `file`, tensor and offset: see
// zip.h and pickle.h; storages that are missing or shorter than they claim,
// tensors that reach outside their storage, names that occur twice, big-endian
// files.
absl::StatusOr<std::vector<TorchTensor>> ParseTorchFile(
    std::span<const std::byte> content, const std::string& file);

// Copies a tensor's elements to `target`, row-major.
void CopyTensor(const TorchTensor& tensor, std::byte* target);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_TORCH_FILE_H_
