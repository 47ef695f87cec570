// A file that several threads write at offsets.
#ifndef CARAVAN_WORKER_MODEL_OUTPUT_FILE_H_
#define CARAVAN_WORKER_MODEL_OUTPUT_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caravan::worker {

// Move-only. Errors (kInternal) name the file.
class OutputFile {
 public:
  // Makes the file, or empties it; `bytes` long, of zeros.
  static absl::StatusOr<OutputFile> Create(std::string path, uint64_t bytes);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(OutputFile&&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();

  // Thread-safe.
  absl::Status WriteAt(uint64_t offset, std::span<const std::byte> bytes) const;
  // Errors that show only now. Nothing may be written afterwards.
  absl::Status Close();

 private:
  OutputFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::string path_;
  int fd_;  // -1: closed
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_OUTPUT_FILE_H_
