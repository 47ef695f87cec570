// Policies against each other on the six fixed traces, at three loads: one CSV
// row for each run, from which fleet_report.py makes the tables and the plot
// of services/router/policies.md.
//
//   fleet_simulation [REQUESTS] [WORKERS] [ROUTERS] [SEED]
//
// Loads are shares of what the fleet could take were every shared part in
// every cache: at the highest no policy keeps up where much is shared, and
// the backlog of 3,000 requests is what is compared.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "common/strings.h"
#include "services/router/policy_cache_aware.h"
#include "services/router/policy_cost.h"
#include "services/router/policy_overlap_cost.h"
#include "services/router/policy_round_robin.h"
#include "tests/simulation/simulated_fleet.h"

namespace caravan::simulation {
namespace {

constexpr double kLoads[] = {0.5, 0.7, 0.85};
constexpr int kQuantiles = 20;

struct Contender {
  std::string policy;
  std::string setting;
  PolicyMaker maker;
};

// The published ones with their default first and four settings around it.
std::vector<Contender> Contenders() {
  std::vector<Contender> all;
  all.push_back({"cost", "default", [](uint64_t seed) {
                   return std::make_unique<router::CostPolicy>(seed);
                 }});
  all.push_back({"round_robin", "default", [](uint64_t seed) {
                   return std::make_unique<router::RoundRobinPolicy>(seed);
                 }});
  const std::vector<router::CacheAwareOptions> thresholds = {
      {32, 1.1}, {4, 1.1}, {8, 1.1}, {16, 1.1}, {64, 1.5}};
  for (const router::CacheAwareOptions& options : thresholds) {
    all.push_back(
        {"cache_aware",
         StrCat(options.absolute_threshold, "/", options.relative_threshold),
         [options](uint64_t seed) {
           return std::make_unique<router::CacheAwarePolicy>(seed, options);
         }});
  }
  for (const double scale : {1.0, 0.5, 2.0, 4.0, 16.0}) {
    all.push_back({"overlap_cost", StrCat(scale), [scale](uint64_t seed) {
                     return std::make_unique<router::OverlapCostPolicy>(
                         seed, router::OverlapCostOptions{scale});
                   }});
  }
  return all;
}

double At(const std::vector<double>& sorted, double share) {
  return sorted[static_cast<size_t>(share *
                                    static_cast<double>(sorted.size() - 1))];
}

void PrintRow(const std::string& trace, double load, const Contender& contender,
              const FleetResult& result) {
  std::vector<double> seconds;
  for (const Outcome& outcome : result.outcomes) {
    seconds.push_back(absl::ToDoubleSeconds(outcome.ttft()));
  }
  std::sort(seconds.begin(), seconds.end());
  const TtftFigures figures =
      FiguresOf(result.outcomes, [](const Outcome&) { return true; });
  const auto cached = static_cast<double>(result.cached_tokens);
  std::cout << trace << ',' << load << ',' << contender.policy << ','
            << contender.setting << ',' << figures.mean << ',' << figures.p99
            << ','
            << cached / (cached + static_cast<double>(result.prefill_tokens))
            << ',' << result.busy_share;
  for (int q = 0; q <= kQuantiles; ++q) {
    std::cout << ',' << At(seconds, static_cast<double>(q) / kQuantiles);
  }
  std::cout << '\n' << std::flush;
}

void PrintHeader(const FleetOptions& options, int requests) {
  std::cout << "# " << requests << " requests a run, " << options.workers
            << " workers, " << options.routers << " routers, seed "
            << options.seed
            << "\ntrace,load,policy,setting,mean,p99,cached,busy";
  for (int q = 0; q <= kQuantiles; ++q) {
    std::cout << ",q" << q * 100 / kQuantiles;
  }
  std::cout << '\n';
}

void RunAll(FleetOptions options, int requests) {
  PrintHeader(options, requests);
  for (const TraceSpec& spec : FixedTraces()) {
    const std::vector<TraceRequest> trace = MakeTrace(spec, requests);
    for (const double load : kLoads) {
      options.requests_per_second = load * IdealCapacity(options, trace);
      for (const Contender& contender : Contenders()) {
        options.policy = contender.maker;
        SimulatedFleet fleet(options, trace);
        PrintRow(spec.name, load, contender, fleet.Run());
      }
    }
  }
}

}  // namespace
}  // namespace caravan::simulation

int main(int argc, char** argv) {
  caravan::simulation::FleetOptions options;
  int requests = 3000;
  if (argc > 1) requests = std::atoi(argv[1]);
  if (argc > 2) options.workers = std::atoi(argv[2]);
  if (argc > 3) options.routers = std::atoi(argv[3]);
  options.gateways = std::max(options.gateways, options.routers);
  if (argc > 4) options.seed = static_cast<uint64_t>(std::atoll(argv[4]));
  if (requests < 1 || options.workers < 1 || options.routers < 1) {
    std::cerr << "fleet_simulation [REQUESTS] [WORKERS] [ROUTERS] [SEED]\n";
    return 2;
  }
  caravan::simulation::RunAll(options, requests);
}
