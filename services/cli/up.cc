// caravan up: the whole suite on this machine.
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <system_error>
#include <thread>

#include "common/grpc/server.h"
#include "common/log.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/cli/commands.h"
#include "services/cli/suite.h"
#include "services/cli/suite_log.h"
#include "services/cli/supervisor.h"

namespace caravan::cli {
namespace {

struct UpOptions {
  SuiteOptions suite;
  std::string log_dir;
};

// A descriptor that becomes readable with SIGINT or SIGTERM, which must be
// blocked. Closed at the end.
class StopDescriptor {
 public:
  StopDescriptor() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  }
  ~StopDescriptor() { close(fd_); }
  StopDescriptor(const StopDescriptor&) = delete;
  StopDescriptor& operator=(const StopDescriptor&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

// The folder of this executable, where the other binaries lie too.
absl::StatusOr<std::string> OwnFolder() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) return self.parent_path().string();
  return MakeError(Reason::kInternal,
                   StrCat("cannot find this executable: ", error.message()));
}

// One line for each service: "SERVICE worker-1 pid=7 grpc=... metrics=...".
void PrintService(const ServiceSpec& spec, pid_t pid,
                  const std::map<std::string, std::string>& ready) {
  std::string line = StrCat("SERVICE ", spec.name, " pid=", pid);
  for (const auto& [field, value] : ready) {
    StrAppend(&line, " ", field, "=", value);
  }
  std::cout << line << "\n" << std::flush;
}

SupervisorEvents EventsOf(SuiteLog& log) {
  SupervisorEvents events;
  events.on_line = [&log](const ServiceSpec& spec, const std::string& line) {
    log.Write(spec.name, line);
  };
  events.on_ready = PrintService;
  events.on_death = [](const ServiceSpec& spec, const std::string& how,
                       absl::Duration pause) {
    LogWarning("service_died", {{"service", spec.name},
                                {"how", how},
                                {"restart_in", absl::FormatDuration(pause)}});
  };
  return events;
}

// From the last stage to the first, each when the one behind it can be called.
absl::Status StartWorkers(const SuiteOptions& options,
                          const std::string& folder, const std::string& router,
                          Supervisor& supervisor) {
  const int cores =
      static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (int stage = options.stages - 1; stage >= 0; --stage) {
    for (int i = 0; i < options.workers; ++i) {
      const std::string next =
          stage + 1 == options.stages
              ? ""
              : supervisor.Field(WorkerServiceName(i, stage + 1), "grpc");
      CARAVAN_RETURN_IF_ERROR(supervisor.Start(
          StageSpec(options, folder, i, stage, cores, router, next)));
    }
    CARAVAN_RETURN_IF_ERROR(supervisor.WaitUntilReady());
  }
  return absl::OkStatus();
}

// Router and tokenizer first, then what needs the router's port, then what
// needs all.
absl::Status StartSuite(const SuiteOptions& options, Supervisor& supervisor) {
  CARAVAN_ASSIGN_OR_RETURN(const std::string folder, OwnFolder());
  CARAVAN_RETURN_IF_ERROR(supervisor.Start(RouterSpec(options, folder)));
  CARAVAN_RETURN_IF_ERROR(supervisor.Start(TokenizerSpec(options, folder)));
  CARAVAN_RETURN_IF_ERROR(supervisor.WaitUntilReady());
  const std::string router = supervisor.Field(kRouterService, "grpc");
  CARAVAN_RETURN_IF_ERROR(StartWorkers(options, folder, router, supervisor));
  CARAVAN_RETURN_IF_ERROR(supervisor.Start(GatewaySpec(
      options, folder, router, supervisor.Field(kTokenizerService, "grpc"))));
  return supervisor.WaitUntilReady();
}

void AnnounceSuite(const SuiteOptions& options, const Supervisor& supervisor) {
  const std::string http = supervisor.Field(kGatewayService, "http");
  const std::string grpc = supervisor.Field(kGatewayService, "grpc");
  std::cout << "Serving " << ModelName(options) << "\n"
            << "  HTTP    http://" << http << "/v1\n"
            << "  gRPC    " << grpc << "\n"
            << "  metrics http://"
            << supervisor.Field(kGatewayService, "metrics") << "/metrics\n";
  AnnounceReady({{"http", http},
                 {"grpc", grpc},
                 {"metrics", supervisor.Field(kGatewayService, "metrics")},
                 {"router", supervisor.Field(kRouterService, "grpc")},
                 {"tokenizer", supervisor.Field(kTokenizerService, "grpc")}});
}

absl::Status RunUp(const UpOptions& options) {
  CARAVAN_RETURN_IF_ERROR(options.suite.Validate());
  SuiteLog log(options.log_dir);
  CARAVAN_RETURN_IF_ERROR(log.Prepare());
  InitLog("caravan");
  BlockTerminationSignals();
  const StopDescriptor stop;
  SupervisorOptions supervisor_options;
  supervisor_options.stop_fd = stop.fd();
  Supervisor supervisor(supervisor_options, EventsOf(log));
  const absl::Status started = StartSuite(options.suite, supervisor);
  if (started.ok()) {
    AnnounceSuite(options.suite, supervisor);
    supervisor.RunUntilStop();
  }
  const bool clean = supervisor.Stop(absl::Seconds(options.suite.grace_s));
  if (!clean) {
    LogWarning("killed_after_grace", {{"grace_s", options.suite.grace_s}});
  }
  // Stopped while it started: that is what was asked for.
  if (ReasonOf(started) == Reason::kCancelled) return absl::OkStatus();
  return started;
}

}  // namespace

Command AddUp(CLI::App& root) {
  CLI::App* app = root.add_subcommand(
      "up", "Start tokenizer, router, workers and gateway on this machine");
  const auto options = std::make_shared<UpOptions>();
  SuiteOptions& suite = options->suite;
  app->add_option("--model", suite.model, "Model directory")->required();
  app->add_option("--chat-template", suite.chat_template,
                  "Format by name (caravan render --list) or template file");
  app->add_option("--served-model-name", suite.served_model_name,
                  "Name in /v1/models (default: the directory's name)");
  app->add_option("--workers", suite.workers, "Replicas of the model");
  app->add_option("--stages", suite.stages,
                  "Worker processes of each replica, in a chain");
  app->add_option("--threads", suite.threads,
                  "Threads of each worker process (0: an equal share of the "
                  "cores)");
  app->add_option("--device", suite.device, "auto, cpu, reference or cuda");
  app->add_option("--listen", suite.listen,
                  "Address of the gateway; all else stays on 127.0.0.1");
  app->add_option("--http-port", suite.http_port, "HTTP port (0: any free)");
  app->add_option("--grpc-port", suite.grpc_port, "gRPC port (0: any free)");
  app->add_option("--api-keys", suite.api_keys, "File of API keys");
  app->add_option("--grace", suite.grace_s,
                  "Seconds that running streams have at the end");
  app->add_option("--log-dir", options->log_dir,
                  "Write the services' logs there instead of warnings here");
  app->add_option("worker_flags", suite.worker_arguments,
                  "After --: flags for the workers");
  return {app, [options] { return RunUp(*options); }};
}

}  // namespace caravan::cli
