// What one key with ten times the load of nine others does to them, at loads
// from half to more than the fleet can take: the table in
// gateway/admission/README.md.
//
//   fairness_simulation [REQUESTS] [WORKERS] [ROWS] [SEED]
//
// Loads are those of the ten keys alike; the flood comes on top. ROWS is how
// many sequences a worker may run.
#include <cstdint>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <memory>

#include "services/router/policy_cost.h"
#include "tests/simulation/key_traffic.h"

namespace caravan::simulation {
namespace {

constexpr double kLoads[] = {0.5, 0.8, 1.0, 1.2};

void PrintHeader(const FleetOptions& options, int requests, uint64_t seed) {
  std::cout << requests << " requests of ten keys, " << options.workers
            << " workers of " << options.engine.max_running << " rows, seed "
            << seed
            << "\n\n| load | first token, alike | beside the flood | p99 "
               "| end, alike | beside the flood | p99 | end of the flood "
               "| the flood's share | all ended after |\n"
               "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
            << std::fixed;
}

// "p50 / p99".
void PrintTimes(const TtftFigures& figures) {
  std::cout << std::setprecision(1) << figures.p50 << " / " << figures.p99
            << " | ";
}

void PrintChange(double ratio) {
  std::cout << std::showpos << std::setprecision(0) << 100 * (ratio - 1)
            << std::noshowpos << " % | ";
}

void PrintRow(double load, const FairnessFigures& figures) {
  std::cout << std::setprecision(2) << "| " << load << " | ";
  PrintTimes(figures.alike.first_token);
  PrintTimes(figures.flooded.first_token);
  PrintChange(figures.first_token_ratio());
  PrintTimes(figures.alike.end);
  PrintTimes(figures.flooded.end);
  PrintChange(figures.end_ratio());
  PrintTimes(figures.flood.end);
  std::cout << std::setprecision(0) << 100 * figures.flood_share << " % | "
            << figures.alike_end << " / " << figures.flooded_end << " s, "
            << figures.wrongly_over << " |\n"
            << std::flush;
}

void RunAll(const FleetOptions& options, int requests, uint64_t seed) {
  PrintHeader(options, requests, seed);
  for (const double load : kLoads) {
    PrintRow(load, RunKeys(options, requests, load, seed));
  }
}

}  // namespace
}  // namespace caravan::simulation

int main(int argc, char** argv) {
  namespace simulation = caravan::simulation;
  simulation::FleetOptions options;
  options.workers = argc > 2 ? std::atoi(argv[2]) : 8;
  options.gateways = 1;
  options.engine.max_prefill_tokens = 128;  // as workers have it
  options.engine.max_running = argc > 3 ? std::atoi(argv[3]) : 32;
  options.policy = [](uint64_t seed) {
    return std::make_unique<caravan::router::CostPolicy>(seed);
  };
  const int requests = argc > 1 ? std::atoi(argv[1]) : 2000;
  const uint64_t seed = argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 5;
  if (requests < 100 || options.workers < 1 || options.engine.max_running < 1) {
    std::cerr << "fairness_simulation [REQUESTS] [WORKERS] [ROWS] [SEED]\n";
    return 2;
  }
  simulation::RunAll(options, requests, seed);
}
