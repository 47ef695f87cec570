// caravan health: asks processes whether they serve.
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "common/status/errors.h"
#include "common/strings.h"
#include "services/cli/commands.h"
#include "services/cli/health_client.h"

namespace caravan::cli {
namespace {

struct HealthOptions {
  ClientOptions client;
  std::vector<std::string> others;  // further addresses
};

constexpr double kDefaultTimeoutS = 5;

// Prints one line; false when the process does not serve.
bool PrintHealth(ClientOptions client, const std::string& address) {
  client.address = address;
  if (client.timeout_s == 0) client.timeout_s = kDefaultTimeoutS;
  const auto health = CheckHealth(client);
  if (health.ok()) {
    std::cout << address << " " << *health << "\n";
    return *health == "SERVING";
  }
  std::cout << address << " " << ReasonName(ReasonOf(health.status())) << ": "
            << ToStd(health.status().message()) << "\n";
  return false;
}

absl::Status RunHealth(const HealthOptions& options) {
  std::vector<std::string> addresses = options.others;
  if (addresses.empty()) addresses.push_back(options.client.address);
  size_t failed = 0;
  for (const std::string& address : addresses) {
    failed += PrintHealth(options.client, address) ? 0 : 1;
  }
  if (failed == 0) return absl::OkStatus();
  return MakeError(Reason::kNoReplica, StrCat(failed, " of ", addresses.size(),
                                              " processes do not serve"));
}

}  // namespace

Command AddHealth(CLI::App& root) {
  CLI::App* app = root.add_subcommand(
      "health", "Ask processes for their gRPC health (all must be SERVING)");
  const auto options = std::make_shared<HealthOptions>();
  AddClientFlags(*app, options->client, "--gateway", "127.0.0.1:8081");
  app->add_option("addresses", options->others,
                  "HOST:PORT of any processes of the suite");
  return {app, [options] { return RunHealth(*options); }};
}

}  // namespace caravan::cli
