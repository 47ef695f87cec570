#include "common/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan {
namespace {

absl::Status FileError(const std::string& path, std::string_view what) {
  return MakeError(Reason::kModelFileInvalid, StrCat(path, ": ", what),
                   {{"file", path}});
}

absl::Status SystemError(const std::string& path, std::string_view what) {
  const std::error_code error(errno, std::generic_category());
  return FileError(path, StrCat(what, ": ", error.message()));
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return SystemError(path, "cannot be opened");
  struct stat info = {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return FileError(path, "kind must be a regular file; got something else");
  }
  const size_t size = static_cast<size_t>(info.st_size);
  if (size == 0) {
    close(fd);
    return FileError(path, "size must be at least 1 byte; got 0");
  }
  void* const data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const absl::Status failure = data == MAP_FAILED
                                   ? SystemError(path, "cannot be mapped")
                                   : absl::OkStatus();
  close(fd);
  if (!failure.ok()) return failure;
  return MappedFile(static_cast<const std::byte*>(data), size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace caravan
