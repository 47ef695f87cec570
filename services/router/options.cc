#include "services/router/options.h"

#include <CLI/CLI.hpp>
#include <cmath>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "services/router/policy_factory.h"

namespace caravan::router {
namespace {

void AddFlags(CLI::App& app, RouterOptions& options) {
  AddServiceFlags(app, options);
  app.add_option("--port", options.port, "gRPC port; 0: any free one");
  app.add_option("--policy", options.policy, "how replicas are ranked");
  app.add_option("--policy-seed", options.policy_seed,
                 "seed of policies that draw; 0: draw one");
  app.add_option("--max-indexed-blocks", options.max_indexed_blocks,
                 "entries of the prefix index");
}

}  // namespace

absl::Status RouterOptions::Validate() const {
  CARAVAN_RETURN_IF_ERROR(CheckFlagRange("--port", port, 0, 65535));
  CARAVAN_RETURN_IF_ERROR(CheckFlagRange(
      "--max-indexed-blocks", static_cast<double>(max_indexed_blocks), 0, 1e9));
  CARAVAN_RETURN_IF_ERROR(MakePolicy(policy, policy_seed).status());
  return ValidateServiceOptions(*this);
}

absl::StatusOr<std::optional<RouterOptions>> ParseRouterOptions(
    int argc, const char* const* argv) {
  RouterOptions options;
  CLI::App app("Chooses replicas for requests.", "caravan-router");
  AddFlags(app, options);
  CARAVAN_ASSIGN_OR_RETURN(const bool go_on, ParseFlags(app, argc, argv));
  if (!go_on) return std::optional<RouterOptions>();
  CARAVAN_RETURN_IF_ERROR(options.Validate());
  return std::optional<RouterOptions>(options);
}

}  // namespace caravan::router
