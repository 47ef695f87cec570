// Writes safetensors files, one tensor after the other.
#ifndef CARAVAN_WORKER_MODEL_SAFETENSORS_WRITER_H_
#define CARAVAN_WORKER_MODEL_SAFETENSORS_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/tensor/dtype.h"

namespace caravan::worker {

struct TensorHeader {
  std::string name;
  DType dtype = DType::kFp32;
  std::vector<int64_t> shape;

  int64_t elements() const;
  uint64_t bytes() const;
};

// A file whose tensors are known beforehand and whose bytes come in their
// order. Not thread-safe.
class SafetensorsWriter {
 public:
  // Creates the file (an existing one is replaced) and writes its header.
  // Errors (kModelFileInvalid) name the file.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, std::span<const TensorHeader> tensors);

  // The next elements, as they lie or rounded to `dtype`. A finite value that
  // has no finite counterpart is an error.
  absl::Status Append(std::span<const std::byte> bytes);
  absl::Status Append(DType dtype, std::span<const float> values);

  // All bytes were appended, and are written.
  absl::Status Close();

 private:
  SafetensorsWriter(std::string path, uint64_t left);
  absl::Status Error() const;

  const std::string path_;
  uint64_t left_ = 0;  // bytes to come
  std::ofstream out_;
  std::vector<uint16_t> narrow_;
};

// "F32", "BF16", "F16".
std::string_view SafetensorsName(DType dtype);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_SAFETENSORS_WRITER_H_
