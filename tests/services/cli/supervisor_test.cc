#include "services/cli/supervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "common/strings.h"
#include "tests/support/status_matchers.h"

namespace caravan::cli {
namespace {

using ::caravan::testing::HasReason;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// A pipe whose reading end becomes readable when the test says stop.
class StopPipe {
 public:
  StopPipe() { EXPECT_EQ(pipe(ends_), 0); }
  ~StopPipe() {
    close(ends_[0]);
    close(ends_[1]);
  }
  int fd() const { return ends_[0]; }
  void Stop() { EXPECT_EQ(write(ends_[1], "x", 1), 1); }

 private:
  int ends_[2];
};

// What a supervisor told, and when to stop it.
class Watcher {
 public:
  explicit Watcher(StopPipe& stop, size_t stop_after_ready = 1000)
      : stop_(stop), stop_after_ready_(stop_after_ready) {}

  SupervisorEvents Events() {
    SupervisorEvents events;
    events.on_line = [this](const ServiceSpec& spec, const std::string& line) {
      lines.push_back(StrCat(spec.name, ": ", line));
    };
    events.on_ready = [this](const ServiceSpec&, pid_t pid, const auto& ready) {
      pids.push_back(pid);
      fields.push_back(ready);
      if (pids.size() == stop_after_ready_) stop_.Stop();
    };
    events.on_death = [this](const ServiceSpec& spec, const std::string& how,
                             absl::Duration pause) {
      deaths.push_back(StrCat(spec.name, " ", how));
      pauses.push_back(pause);
    };
    return events;
  }

  std::vector<std::string> lines;
  std::vector<pid_t> pids;
  std::vector<std::map<std::string, std::string>> fields;
  std::vector<std::string> deaths;
  std::vector<absl::Duration> pauses;

 private:
  StopPipe& stop_;
  size_t stop_after_ready_;
};

SupervisorOptions FastOptions(const StopPipe& stop) {
  SupervisorOptions options;
  options.backoff.first = absl::Milliseconds(1);
  options.backoff.longest = absl::Milliseconds(4);
  options.stop_fd = stop.fd();
  return options;
}

// `script` sees the port flags as $1 $2.
ServiceSpec Shell(const std::string& name, const std::string& script) {
  ServiceSpec spec;
  spec.name = name;
  spec.program = "/bin/sh";
  spec.arguments = {"-c", script, "sh"};
  spec.ports = {{"--port", "grpc", 0}};
  return spec;
}

constexpr char kServe[] =
    "trap 'exit 0' TERM; echo READY grpc=127.0.0.1:4242; "
    "while :; do sleep 0.01; done";

TEST(ParseReadyLineTest, ReadsFieldsAndRefusesOtherLines) {
  const auto fields = ParseReadyLine("READY grpc=127.0.0.1:1 http=h:2");
  ASSERT_TRUE(fields.has_value());
  EXPECT_EQ(fields->at("grpc"), "127.0.0.1:1");
  EXPECT_EQ(fields->at("http"), "h:2");
  EXPECT_FALSE(ParseReadyLine("ready grpc=1").has_value());
  EXPECT_FALSE(ParseReadyLine("READY or not").has_value());
}

TEST(RestartBackoffTest, PausesDoubleUpToTheLongestAndStartAnewWhenSteady) {
  BackoffOptions options;
  options.first = absl::Seconds(1);
  options.longest = absl::Seconds(3);
  options.steady = absl::Seconds(10);
  RestartBackoff backoff(options);
  EXPECT_EQ(backoff.NextPause(absl::ZeroDuration()), absl::Seconds(1));
  EXPECT_EQ(backoff.NextPause(absl::ZeroDuration()), absl::Seconds(2));
  EXPECT_EQ(backoff.NextPause(absl::ZeroDuration()), absl::Seconds(3));
  EXPECT_EQ(backoff.NextPause(absl::Seconds(9)), absl::Seconds(3));
  EXPECT_EQ(backoff.NextPause(absl::Seconds(10)), absl::Seconds(1));
}

TEST(SupervisorTest, LearnsPortsFromTheReadyLine) {
  StopPipe stop;
  Watcher watcher(stop);
  Supervisor supervisor(FastOptions(stop), watcher.Events());
  ASSERT_OK(supervisor.Start(Shell("a", kServe)));
  ASSERT_OK(supervisor.WaitUntilReady());
  EXPECT_EQ(supervisor.Field("a", "grpc"), "127.0.0.1:4242");
  EXPECT_EQ(supervisor.Field("a", "http"), "");
  EXPECT_TRUE(supervisor.Stop(absl::Seconds(30)));
}

TEST(SupervisorTest, ADeathBeforeReadyFailsTheStartWithTheLastLines) {
  StopPipe stop;
  Watcher watcher(stop);
  Supervisor supervisor(FastOptions(stop), watcher.Events());
  ASSERT_OK(supervisor.Start(Shell("a", "echo no such model >&2; exit 3")));
  const absl::Status status = supervisor.WaitUntilReady();
  EXPECT_THAT(status, HasReason(Reason::kInternal));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("a ended with exit code 3 before it was ready\n"
                        "  no such model"));
}

TEST(SupervisorTest, AMissingProgramIsNamed) {
  StopPipe stop;
  Watcher watcher(stop);
  Supervisor supervisor(FastOptions(stop), watcher.Events());
  ServiceSpec spec = Shell("a", "");
  spec.program = "/nonexistent/caravan-router";
  EXPECT_THAT(supervisor.Start(spec), HasReason(Reason::kNotFound));
}

TEST(SupervisorTest, WhatDiesIsStartedAgainOnItsPortAfterGrowingPauses) {
  StopPipe stop;
  Watcher watcher(stop, /*stop_after_ready=*/4);
  Supervisor supervisor(FastOptions(stop), watcher.Events());
  ASSERT_OK(supervisor.Start(
      Shell("a", "echo READY grpc=127.0.0.1:4242 asked=$2; exit 1")));
  ASSERT_OK(supervisor.WaitUntilReady());
  supervisor.RunUntilStop();
  ASSERT_THAT(watcher.fields, SizeIs(4));
  EXPECT_EQ(watcher.fields[0].at("asked"), "0");
  EXPECT_EQ(watcher.fields[1].at("asked"), "4242");
  ASSERT_GE(watcher.pauses.size(), 3u);
  EXPECT_EQ(watcher.pauses[0], absl::Milliseconds(1));
  EXPECT_EQ(watcher.pauses[1], absl::Milliseconds(2));
  EXPECT_EQ(watcher.pauses[2], absl::Milliseconds(4));
  EXPECT_EQ(watcher.deaths[0], "a exit code 1");
}

TEST(SupervisorTest, AKilledChildIsStartedAgain) {
  StopPipe stop;
  Watcher watcher(stop, /*stop_after_ready=*/2);
  Supervisor supervisor(FastOptions(stop), watcher.Events());
  ASSERT_OK(supervisor.Start(Shell("a", kServe)));
  ASSERT_OK(supervisor.WaitUntilReady());
  kill(watcher.pids.front(), SIGKILL);
  supervisor.RunUntilStop();
  EXPECT_THAT(watcher.deaths, ElementsAre("a signal 9"));
  EXPECT_TRUE(supervisor.Stop(absl::Seconds(30)));
}

TEST(SupervisorTest, StopEndsTheServicesInTheirOrder) {
  StopPipe stop;
  Watcher watcher(stop);
  Supervisor supervisor(FastOptions(stop), watcher.Events());
  const std::string script =
      "trap 'echo bye; exit 0' TERM; echo READY grpc=h:1; "
      "while :; do sleep 0.01; done";
  int order = 3;
  for (const char* name : {"router", "worker", "gateway"}) {
    ServiceSpec spec = Shell(name, script);
    spec.stop_order = --order;
    ASSERT_OK(supervisor.Start(spec));
  }
  ASSERT_OK(supervisor.WaitUntilReady());
  EXPECT_TRUE(supervisor.Stop(absl::Seconds(30)));
  EXPECT_THAT(watcher.lines,
              ElementsAre("gateway: bye", "worker: bye", "router: bye"));
}

TEST(SupervisorTest, WhatIgnoresTheSignalIsKilledAfterTheGrace) {
  StopPipe stop;
  Watcher watcher(stop);
  Supervisor supervisor(FastOptions(stop), watcher.Events());
  ASSERT_OK(supervisor.Start(Shell(
      "a", "trap '' TERM; echo READY grpc=h:1; while :; do sleep 0.01; done")));
  ASSERT_OK(supervisor.WaitUntilReady());
  EXPECT_FALSE(supervisor.Stop(absl::ZeroDuration()));
  EXPECT_NE(kill(watcher.pids.front(), 0), 0);
}

TEST(SupervisorTest, AStopDuringTheStartIsACancellation) {
  StopPipe stop;
  Watcher watcher(stop);
  Supervisor supervisor(FastOptions(stop), watcher.Events());
  ASSERT_OK(supervisor.Start(
      Shell("a", "trap 'exit 0' TERM; while :; do sleep 0.01; done")));
  stop.Stop();
  EXPECT_THAT(supervisor.WaitUntilReady(), HasReason(Reason::kCancelled));
}

TEST(SupervisorTest, LinesOfBothStreamsArePassedOn) {
  StopPipe stop;
  Watcher watcher(stop);
  Supervisor supervisor(FastOptions(stop), watcher.Events());
  ASSERT_OK(supervisor.Start(
      Shell("a", std::string("echo out; echo err >&2; ") + kServe)));
  ASSERT_OK(supervisor.WaitUntilReady());
  EXPECT_TRUE(supervisor.Stop(absl::Seconds(30)));
  EXPECT_THAT(watcher.lines,
              ::testing::UnorderedElementsAre("a: out", "a: err"));
}

}  // namespace
}  // namespace caravan::cli
