#include "common/grpc/service_options.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"

namespace caravan {
namespace {

using testing::HasReason;
using ::testing::HasSubstr;

absl::StatusOr<bool> Parse(const std::vector<const char*>& flags,
                           ServiceOptions& options) {
  CLI::App app("test");
  AddServiceFlags(app, options);
  std::vector<const char*> argv = {"test"};
  argv.insert(argv.end(), flags.begin(), flags.end());
  return ParseFlags(app, static_cast<int>(argv.size()), argv.data());
}

TEST(ServiceOptionsTest, TakesTheFlagsOfAllProcesses) {
  ServiceOptions options;
  const auto go_on =
      Parse({"--listen", "::1", "--metrics-port", "7", "--tls-cert", "c",
             "--tls-key", "k", "--tls-ca", "a", "--grace", "2"},
            options);
  ASSERT_OK(go_on);
  EXPECT_TRUE(*go_on);
  EXPECT_OK(ValidateServiceOptions(options));
  EXPECT_EQ(options.grace_s, 2);
  const ServerOptions server = ToServerOptions(options, /*port=*/5);
  EXPECT_EQ(server.listen, "::1");
  EXPECT_EQ(server.port, 5);
  EXPECT_EQ(server.tls.certificate_file, "c");
  EXPECT_EQ(server.tls.key_file, "k");
  EXPECT_EQ(server.tls.ca_file, "a");
}

TEST(ServiceOptionsTest, WrongFlagsAreNamed) {
  ServiceOptions options;
  EXPECT_THAT(Parse({"--what"}, options), HasReason(Reason::kInvalidField));
  const auto refused = [](auto change, const std::string& flag) {
    ServiceOptions changed;
    change(changed);
    EXPECT_THAT(ValidateServiceOptions(changed),
                HasReason(Reason::kInvalidField, HasSubstr(flag)));
  };
  refused([](auto& o) { o.metrics_port = 65536; }, "--metrics-port");
  refused([](auto& o) { o.grace_s = -1; }, "--grace");
  refused([](auto& o) { o.log_level = "loud"; }, "--log-level");
}

struct TestOptions : ServiceOptions {};
using Parsed = absl::StatusOr<std::optional<TestOptions>>;

TEST(ServiceOptionsTest, TheExitCodeSaysHowTheProcessEnded) {
  const auto serve = [](absl::Status status) {
    return [status](const TestOptions&) { return status; };
  };
  const Parsed parsed = std::optional<TestOptions>(TestOptions());
  EXPECT_EQ(RunService("test", parsed, serve(absl::OkStatus())), 0);
  EXPECT_NE(RunService("test", parsed, serve(absl::InternalError("x"))), 0);
  const Parsed help = std::optional<TestOptions>();
  EXPECT_EQ(RunService("test", help, serve(absl::InternalError("x"))), 0);
  const Parsed wrong = absl::InvalidArgumentError("x");
  EXPECT_NE(RunService("test", wrong, serve(absl::OkStatus())), 0);
}

}  // namespace
}  // namespace caravan
