// A file mapped into memory.
#ifndef CARAVAN_COMMON_MAPPED_FILE_H_
#define CARAVAN_COMMON_MAPPED_FILE_H_

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace caravan {

// A read-only mapping of a whole file. Move-only. Thread-safe as memory is.
class MappedFile {
 public:
  // kModelFileInvalid, naming the path, for what cannot be opened, is not a
  // regular file, or is empty.
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, size_t size) : data_(data), size_(size) {}
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace caravan

#endif  // CARAVAN_COMMON_MAPPED_FILE_H_
