#include "worker/model/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

absl::Status WriteError(const std::string& path) {
  const std::error_code error(errno, std::generic_category());
  return MakeError(Reason::kInternal,
                   StrCat(path, ": cannot be written: ", error.message()),
                   {{"file", path}});
}

}  // namespace

absl::StatusOr<OutputFile> OutputFile::Create(std::string path,
                                              uint64_t bytes) {
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return WriteError(path);
  OutputFile file(std::move(path), fd);
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    return WriteError(file.path_);
  }
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status OutputFile::WriteAt(uint64_t offset,
                                 std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t written =
        pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return WriteError(path_);
    offset += static_cast<uint64_t>(written);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Close() {
  return close(std::exchange(fd_, -1)) == 0 ? absl::OkStatus()
                                            : WriteError(path_);
}

}  // namespace caravan::worker
