// Starts processes that announce their ports, restarts what dies, and stops
// them in order.
#ifndef CARAVAN_SERVICES_CLI_SUPERVISOR_H_
#define CARAVAN_SERVICES_CLI_SUPERVISOR_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "services/cli/child_process.h"
#include "services/cli/restart_backoff.h"

namespace caravan::cli {

// A flag that takes a port, and the field of the READY line that tells the
// real one. A restart asks for the port that the first start got.
struct PortFlag {
  std::string flag;   // "--port"
  std::string field;  // "grpc"
  int port = 0;       // 0: any free port
};

struct ServiceSpec {
  std::string name;  // unique in the supervisor
  std::string program;
  std::vector<std::string> arguments;  // without the port flags
  std::vector<PortFlag> ports;
  int stop_order = 0;  // lower ones end before higher ones are told
};

// "READY grpc=127.0.0.1:1 metrics=127.0.0.1:2" as a map, or nothing when the
// line is another one.
std::optional<std::map<std::string, std::string>> ParseReadyLine(
    std::string_view line);

// What the owner wants to hear; called on the thread that runs the loop.
struct SupervisorEvents {
  // A line of standard error, or one of standard output that is not READY.
  std::function<void(const ServiceSpec&, const std::string& line)> on_line;
  // At the first start and after each restart.
  std::function<void(const ServiceSpec&, pid_t pid,
                     const std::map<std::string, std::string>& ready)>
      on_ready;
  // It died and will be started again after `pause`.
  std::function<void(const ServiceSpec&, const std::string& how,
                     absl::Duration pause)>
      on_death;
};

struct SupervisorOptions {
  BackoffOptions backoff;
  // Readable when the supervisor should stop waiting and return.
  int stop_fd = -1;
  const Clock* clock = &SystemClock::Get();
};

// Not thread-safe: one thread starts the children and runs the loop.
class Supervisor {
 public:
  Supervisor(const SupervisorOptions& options, SupervisorEvents events);
  ~Supervisor();

  // Starts a process; returns at once.
  absl::Status Start(const ServiceSpec& spec);

  // Returns when every process is ready. Fails when one ended before it was
  // ready for the first time (with its last lines), and with kCancelled when
  // a stop was asked for.
  absl::Status WaitUntilReady();

  // Restarts what dies until a stop is asked for.
  void RunUntilStop();

  // Sends SIGTERM in the order of ServiceSpec::stop_order, each time waiting
  // for the ends. `grace` is for all together; what is left two seconds later
  // is killed. Returns false when something was killed.
  bool Stop(absl::Duration grace);

  // A field of the READY line ("grpc"); empty before that.
  std::string Field(std::string_view service, std::string_view field) const;

 private:
  struct Service;

  absl::Status Launch(Service& service);
  // One round of the loop: waits at most `wait` for output, ends, restarts.
  void PollOnce(absl::Duration wait);
  void WaitForEvents(absl::Duration wait);
  void ReadOutput(Service& service);
  void HandleLine(Service& service, const std::string& line);
  void HandleEnd(Service& service);
  void RestartWhenDue(Service& service);
  bool WaitForEnd(absl::Time deadline,
                  const std::function<bool(const Service&)>& which);
  absl::Status FirstFailure() const;

  SupervisorOptions options_;
  SupervisorEvents events_;
  std::vector<std::unique_ptr<Service>> services_;
  pid_t group_ = 0;
  bool stop_asked_ = false;
  bool stopping_ = false;
};

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_SUPERVISOR_H_
