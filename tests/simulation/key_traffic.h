// Ten keys, of which one may send ten times the load of the nine others: what
// the fairness of admission is measured with.
#ifndef CARAVAN_TESTS_SIMULATION_KEY_TRAFFIC_H_
#define CARAVAN_TESTS_SIMULATION_KEY_TRAFFIC_H_

#include <cstdint>
#include <vector>

#include "tests/simulation/fleet_trace.h"
#include "tests/simulation/simulated_fleet.h"

namespace caravan::simulation {

// Tenant 0 is the one that may flood.
inline constexpr int kKeyCount = 10;

// `request_count` requests of ten keys alike, about one in a unit of time, and
// (flood_times - 1) as many again of the first key, in between. The requests
// of the other nine are the same for every `flood_times` (at least 1).
std::vector<TraceRequest> MakeKeysTrace(int request_count, int flood_times,
                                        uint64_t seed);

// Times to the first token and to the end.
struct KeyFigures {
  TtftFigures first_token;
  TtftFigures end;
};

// Of one run with the keys alike and one with the flood.
struct FairnessFigures {
  KeyFigures alike;    // of the nine
  KeyFigures flooded;  // of the nine, beside the flood
  KeyFigures flood;    // of the first key then
  // Of the tokens (prompt and output) that the fleet had served when the last
  // request of the nine came.
  double flood_share = 0;
  double alike_end = 0;    // seconds until all had ended
  double flooded_end = 0;  // the same with the flood
  int wrongly_over = 0;    // requests of the nine over their share, in both

  double first_token_ratio() const {
    return flooded.first_token.p99 / alike.first_token.p99;
  }
  double end_ratio() const { return flooded.end.p99 / alike.end.p99; }
};

// `load` is a share of what the fleet can take, by the ten keys alike.
FairnessFigures RunKeys(FleetOptions options, int request_count, double load,
                        uint64_t seed);

}  // namespace caravan::simulation

#endif  // CARAVAN_TESTS_SIMULATION_KEY_TRAFFIC_H_
