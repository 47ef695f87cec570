// A child process with piped standard output and error.
#ifndef CARAVAN_SERVICES_CLI_CHILD_PROCESS_H_
#define CARAVAN_SERVICES_CLI_CHILD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan::cli {

// Splits what a pipe delivers into lines. A line over 64 KiB is cut.
//
// Not thread-safe.
class LineReader {
 public:
  // `fd` must be non-blocking; it is not owned.
  explicit LineReader(int fd) : fd_(fd) {}

  // Appends the lines of the next 256 KiB that are complete, without their
  // line ends; at the end of the stream also an unfinished last one. False at
  // the end.
  bool Read(std::vector<std::string>* lines);

 private:
  void Split(std::string_view chunk, std::vector<std::string>* lines);

  int fd_;
  std::string partial_;
};

// Not thread-safe. The child gets SIGTERM when the thread that started it
// ends, so that no orphan survives its supervisor.
class ChildProcess {
 public:
  // Starts `program` (a path) with `arguments` (without the program's name)
  // in process group `group`, or in one of its own when 0 or when that group
  // is gone. Fails with the system's error.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(
      const std::string& program, const std::vector<std::string>& arguments,
      pid_t group);

  // Kills and reaps a child that still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void Signal(int signal);

  // How it ended ("exit code 1", "signal 9"), or nothing while it runs.
  const std::optional<std::string>& Poll();

  pid_t pid() const { return pid_; }
  int out_fd() const { return out_fd_; }
  int error_fd() const { return error_fd_; }

 private:
  ChildProcess(pid_t pid, int out_fd, int error_fd)
      : pid_(pid), out_fd_(out_fd), error_fd_(error_fd) {}

  pid_t pid_;
  int out_fd_;
  int error_fd_;
  std::optional<std::string> end_;
};

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_CHILD_PROCESS_H_
