#include "services/cli/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::cli {
namespace {

constexpr size_t kMaxLineBytes = 64 << 10;
constexpr int kMaxReads = 64;  // in one call of LineReader::Read

// The two ends of a pipe; closes what is not released.
class Pipe {
 public:
  static absl::StatusOr<Pipe> Open() {
    std::array<int, 2> ends;
    if (pipe2(ends.data(), O_CLOEXEC) != 0) {
      return MakeError(Reason::kInternal,
                       StrCat("cannot open a pipe: ", strerror(errno)));
    }
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    return Pipe(ends[0], ends[1]);
  }
  Pipe(Pipe&& other) noexcept
      : read_(std::exchange(other.read_, -1)),
        write_(std::exchange(other.write_, -1)) {}
  ~Pipe() {
    if (read_ >= 0) close(read_);
    if (write_ >= 0) close(write_);
  }
  int write_end() const { return write_; }
  int ReleaseRead() { return std::exchange(read_, -1); }

 private:
  Pipe(int read_end, int write_end) : read_(read_end), write_(write_end) {}
  int read_;
  int write_;
};

// Between fork and exec: only async-signal-safe calls.
[[noreturn]] void BecomeChild(const char* program, char* const* arguments,
                              int out, int error, pid_t group, pid_t parent) {
  if (setpgid(0, group) != 0) setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(127);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  dup2(out, STDOUT_FILENO);
  dup2(error, STDERR_FILENO);
  const int null = open("/dev/null", O_RDONLY);
  if (null >= 0) dup2(null, STDIN_FILENO);
  execv(program, arguments);
  constexpr char kMessage[] = "cannot execute the program\n";
  const ssize_t ignored = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
  _exit(ignored < 0 ? 126 : 127);
}

std::vector<char*> ArgumentPointers(std::vector<std::string>& all) {
  std::vector<char*> pointers;
  for (std::string& argument : all) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

bool LineReader::Read(std::vector<std::string>* lines) {
  std::array<char, 4096> buffer;
  for (int i = 0; i < kMaxReads; ++i) {
    const ssize_t count = read(fd_, buffer.data(), buffer.size());
    if (count > 0) {
      Split(std::string_view(buffer.data(), static_cast<size_t>(count)), lines);
    } else if (count < 0 && errno == EINTR) {
      continue;
    } else if (count < 0 && errno == EAGAIN) {
      return true;
    } else {
      if (!partial_.empty()) lines->push_back(std::exchange(partial_, {}));
      return false;
    }
  }
  return true;  // there may be more; others have their turn first
}

void LineReader::Split(std::string_view chunk,
                       std::vector<std::string>* lines) {
  for (const char c : chunk) {
    if (c == '\n') {
      lines->push_back(std::exchange(partial_, {}));
    } else if (partial_.size() < kMaxLineBytes) {
      partial_.push_back(c);
    }
  }
}

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    const std::string& program, const std::vector<std::string>& arguments,
    pid_t group) {
  if (access(program.c_str(), X_OK) != 0) {
    return MakeError(Reason::kNotFound,
                     StrCat("cannot execute ", program, ": ", strerror(errno)));
  }
  auto out = Pipe::Open();
  if (!out.ok()) return out.status();
  auto error = Pipe::Open();
  if (!error.ok()) return error.status();
  std::vector<std::string> all = {program};
  all.insert(all.end(), arguments.begin(), arguments.end());
  const std::vector<char*> pointers = ArgumentPointers(all);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    return MakeError(Reason::kInternal,
                     StrCat("cannot fork: ", strerror(errno)));
  }
  if (pid == 0) {
    BecomeChild(program.c_str(), pointers.data(), out->write_end(),
                error->write_end(), group, parent);
  }
  // Also here: whichever of the two comes first.
  if (setpgid(pid, group) != 0) setpgid(pid, 0);
  return absl::WrapUnique(
      new ChildProcess(pid, out->ReleaseRead(), error->ReleaseRead()));
}

ChildProcess::~ChildProcess() {
  if (!Poll()) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(out_fd_);
  close(error_fd_);
}

void ChildProcess::Signal(int signal) {
  if (!Poll()) kill(pid_, signal);
}

const std::optional<std::string>& ChildProcess::Poll() {
  int status = 0;
  if (end_ || waitpid(pid_, &status, WNOHANG) != pid_) return end_;
  if (WIFSIGNALED(status)) {
    end_ = StrCat("signal ", WTERMSIG(status));
  } else {
    end_ = StrCat("exit code ", WEXITSTATUS(status));
  }
  return end_;
}

}  // namespace caravan::cli
