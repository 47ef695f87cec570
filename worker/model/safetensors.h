// Checkpoints in safetensors files, one or several, mapped into memory. What a
// file claims is checked before it is believed.
#ifndef CARAVAN_WORKER_MODEL_SAFETENSORS_H_
#define CARAVAN_WORKER_MODEL_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/mapped_file.h"
#include "worker/tensor/dtype.h"

namespace caravan::worker {

// The greatest header that the format allows.
inline constexpr uint64_t kMostHeaderBytes = 100'000'000;

// A tensor as its file describes it. `data` may be unaligned and lives as long
// as the checkpoint.
struct TensorRecord {
  std::string name;
  std::string dtype_name;  // "F32", "BF16", "F16", "I64", ...
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // of its first byte in the file
  size_t bytes = 0;
  const std::byte* data = nullptr;
  std::string file;  // path, for messages

  // The types that weights may have, or nothing.
  std::optional<DType> dtype() const;
};

// Parses the header of a file whose bytes are `content`. Errors
// (kModelFileInvalid) name `file`, the tensor and the offset: a header that is
// too long, cut off or no JSON, unknown types, sizes that do not match shape
// and type, ranges that overlap, leave holes or go past the end.
absl::StatusOr<std::vector<TensorRecord>> ParseSafetensors(
    std::span<const std::byte> content, const std::string& file);

// All tensors of a model directory. Thread-safe.
class Checkpoint {
 public:
  // Opens DIR/model.safetensors, or the files that
  // DIR/model.safetensors.index.json names (each in DIR itself).
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(
      const std::string& directory);

  // Null where there is none of that name.
  const TensorRecord* Find(std::string_view name) const;
  // The same, or an error that names tensor and directory.
  absl::StatusOr<const TensorRecord*> Get(std::string_view name) const;

  const std::map<std::string, TensorRecord, std::less<>>& tensors() const {
    return tensors_;
  }

  // Lets the system take the tensor's pages back: they were read for the last
  // time.
  void DropPages(const TensorRecord& tensor) const;

 private:
  explicit Checkpoint(std::string directory)
      : directory_(std::move(directory)) {}
  absl::Status AddFile(const std::string& name);
  absl::Status AddShards();

  const std::string directory_;
  std::vector<MappedFile> files_;
  std::map<std::string, TensorRecord, std::less<>> tensors_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_SAFETENSORS_H_
