// What can happen to a request, combined so that every pair of causes meets.
#ifndef CARAVAN_TESTS_WORKER_EXACTNESS_SCENARIO_H_
#define CARAVAN_TESTS_WORKER_EXACTNESS_SCENARIO_H_

#include <cstdint>
#include <string>
#include <vector>

namespace caravan::worker {

struct Scenario {
  bool crowded = false;  // 32 sequences in the step, else alone
  int32_t chunk = 512;   // 1, 7, 64 or all
  bool hit = false;      // a prefix stands in the cache
  bool parked = false;   // parked and resumed on the way
  int threads = 1;       // 1, 2 or 3
  int depth = 1;         // 1, 2 or 3
  bool sampled = false;  // seeded sampling, else greedy; both with penalties
  int choices = 1;       // 1 or 2

  std::string ToString() const;
};

// Scenarios in which every pair of values of two causes meets at least once.
std::vector<Scenario> PairwiseScenarios(uint32_t seed);

}  // namespace caravan::worker

#endif  // CARAVAN_TESTS_WORKER_EXACTNESS_SCENARIO_H_
