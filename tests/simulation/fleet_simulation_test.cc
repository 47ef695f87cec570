// The fleet under a virtual clock: what must hold whatever fails, and whoever
// sends how much.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/strings.h"
#include "services/router/policy_factory.h"
#include "tests/simulation/fleet_trace.h"
#include "tests/simulation/key_traffic.h"
#include "tests/simulation/simulated_fleet.h"

namespace caravan::simulation {
namespace {

PolicyMaker Policy(const std::string& name) {
  return
      [name](uint64_t seed) { return router::MakePolicy(name, seed).value(); };
}

FleetOptions Options(const std::vector<TraceRequest>& trace, double load) {
  FleetOptions options;
  options.policy = Policy("cost");
  options.seed = 20260801;
  ::testing::Test::RecordProperty("seed", std::to_string(options.seed));
  options.requests_per_second = load * IdealCapacity(options, trace);
  return options;
}

// The fleet of a larger machine, whose loads change fifty times between two
// heartbeats where the README's changes once.
void MakeFast(FleetOptions& options, double times) {
  options.cost = options.cost.Faster(times);
  options.requests_per_second *= times;
}

bool Any(const Outcome&) { return true; }

void ExpectAllEndedOnce(const FleetResult& result,
                        const std::vector<TraceRequest>& trace) {
  for (size_t i = 0; i < trace.size(); ++i) {
    ASSERT_TRUE(result.outcomes[i].finished()) << "request " << i;
    ASSERT_EQ(result.outcomes[i].output_tokens, trace[i].output_tokens)
        << "request " << i;
  }
}

TEST(FleetTraceTest, TheSixTracesAreWhatTheyWereBeforePoliciesWereTuned) {
  const std::vector<uint64_t> digests = {
      0xdb0cb1adef9eaca6, 0x76404a72961bccf1, 0x8dc6d959b5705c5b,
      0xc068e9e04b3d8cae, 0xe7c645cbaf2fbe50, 0xe6b2ceef685de93d};
  for (size_t i = 0; i < FixedTraces().size(); ++i) {
    EXPECT_EQ(DigestOf(MakeTrace(FixedTraces()[i], 2000)), digests[i])
        << FixedTraces()[i].name;
  }
}

TEST(StepCostTest, IsWithinAFifthOfWhatWasMeasured) {
  const StepCost cost = StepCost::Measured();
  const auto streams = [&](double n) {
    return n / cost.Seconds({.decode_rows = n, .kv_tokens = n * 128});
  };
  EXPECT_NEAR(streams(1), 21.7, 4.3);
  EXPECT_NEAR(streams(8), 110, 22);
  EXPECT_NEAR(streams(32), 214, 43);
  EXPECT_NEAR(512 / cost.Seconds({.prefill_tokens = 512}), 302, 60);
}

TEST(FleetSimulationTest, OneSeedGivesOneRun) {
  const auto trace = MakeTrace(FixedTraces()[4], 150);
  const FleetOptions options = Options(trace, 0.7);
  const FleetResult first = SimulatedFleet(options, trace).Run();
  const FleetResult second = SimulatedFleet(options, trace).Run();
  EXPECT_EQ(first.steps, second.steps);
  for (size_t i = 0; i < trace.size(); ++i) {
    EXPECT_EQ(first.outcomes[i].first_token, second.outcomes[i].first_token);
    EXPECT_EQ(first.outcomes[i].end, second.outcomes[i].end);
  }
}

TEST(FleetSimulationTest, WhereMuchIsSharedThePrefixIsFoundAndWaitsAreShort) {
  const auto trace = MakeTrace(FixedTraces()[2], 300);
  FleetOptions options = Options(trace, 0.5);
  const FleetResult ours = SimulatedFleet(options, trace).Run();
  options.policy = Policy("round_robin");
  const FleetResult turns = SimulatedFleet(options, trace).Run();
  EXPECT_GT(ours.cached_tokens, 1.2 * static_cast<double>(turns.cached_tokens));
  EXPECT_LT(FiguresOf(ours.outcomes, Any).mean,
            0.6 * FiguresOf(turns.outcomes, Any).mean);
}

TEST(FleetSimulationTest, EveryStreamEndsWholeThoughWorkersAndRoutersDie) {
  const auto trace = MakeTrace(FixedTraces()[1], 300);
  FleetOptions options = Options(trace, 0.5);
  options.routers = 3;
  for (int i = 0; i < 6; ++i) {
    const absl::Duration at = absl::Seconds(10 + 8 * i);
    const FaultKind kind =
        i % 2 == 0 ? FaultKind::kKillWorker : FaultKind::kSilenceWorker;
    options.faults.push_back({at, kind, i});
    options.faults.push_back(
        {at + absl::Seconds(6), FaultKind::kRestartWorker, i});
  }
  options.faults.push_back({absl::Seconds(20), FaultKind::kKillRouter, 1});
  const FleetResult result = SimulatedFleet(options, trace).Run();
  ExpectAllEndedOnce(result, trace);
  const auto again = std::count_if(
      result.outcomes.begin(), result.outcomes.end(),
      [](const Outcome& outcome) { return outcome.placements > 1; });
  EXPECT_GT(again, 10);  // the failures hit running streams
}

// --- Stale loads ---------------------------------------------------------

// Of samples with some load: the mean over time of max/mean, and the worst.
struct Imbalance {
  double mean = 0;
  double worst = 0;
};

Imbalance ImbalanceOf(const FleetResult& result, double least_mean) {
  Imbalance imbalance;
  int count = 0;
  for (const LoadSample& sample : result.loads) {
    if (sample.mean < least_mean) continue;
    const double ratio = sample.max / sample.mean;
    imbalance.mean += ratio;
    imbalance.worst = std::max(imbalance.worst, ratio);
    ++count;
  }
  imbalance.mean /= std::max(count, 1);
  return imbalance;
}

FleetResult RunManyGateways(bool with_credit) {
  const auto trace = MakeTrace(FixedTraces()[0], 1500);
  FleetOptions options = Options(trace, 0.8);
  options.routers = 2;
  options.gateways = 20;
  options.load_sample = absl::Milliseconds(20);
  MakeFast(options, 50);
  if (!with_credit) {
    options.placer.registry.credit_expires = absl::ZeroDuration();
  }
  return SimulatedFleet(options, trace).Run();
}

TEST(FleetSimulationTest, TwoRoutersAndTwentyGatewaysDoNotAllRunToOneWorker) {
  const FleetResult result = RunManyGateways(/*with_credit=*/true);
  const Imbalance imbalance = ImbalanceOf(result, /*least_mean=*/4);
  RecordProperty("max_over_mean", std::to_string(imbalance.mean));
  std::cout << "max/mean load over time: mean " << imbalance.mean << ", worst "
            << imbalance.worst << "\n";
  EXPECT_LT(imbalance.mean, 2.3);
  EXPECT_LT(imbalance.worst, 4);
}

TEST(FleetSimulationTest, WithoutCreditTheyDo) {
  const Imbalance with = ImbalanceOf(RunManyGateways(true), 4);
  const Imbalance without = ImbalanceOf(RunManyGateways(false), 4);
  std::cout << "without credit: mean " << without.mean << ", worst "
            << without.worst << "\n";
  EXPECT_GT(without.mean, 1.3 * with.mean);
}

TEST(FleetSimulationTest, AWorkerThatMissedTwoHeartbeatsGetsNoPlacement) {
  const auto trace = MakeTrace(FixedTraces()[0], 400);
  FleetOptions options = Options(trace, 0.6);
  options.routers = 2;
  options.gateways = 20;
  constexpr int kSilent = 5;
  const absl::Duration silence = absl::Seconds(20);
  options.faults = {{silence, FaultKind::kSilenceWorker, kSilent}};
  const FleetResult result = SimulatedFleet(options, trace).Run();
  ExpectAllEndedOnce(result, trace);
  // Its last heartbeat is before the silence; two are missed, and half of one
  // is for jitter.
  const absl::Duration no_more =
      silence + 2.5 * options.heartbeat + options.network;
  int before = 0;
  for (const PlacementNote& note : result.placements) {
    if (note.worker != kSilent) continue;
    EXPECT_LT(note.at, no_more);
    ++before;
  }
  EXPECT_GT(before, 0);
}

// --- Fairness ------------------------------------------------------------

class FairnessTest : public ::testing::TestWithParam<double> {};

// The parameter is the load of ten keys alike, as a share of what the fleet
// can take; the flood of the first comes on top.
TEST_P(FairnessTest, AKeyWithTenTimesTheLoadSlowsTheOthersByLessThanAFifth) {
  FleetOptions options;
  options.workers = 8;
  options.gateways = 1;
  options.engine.max_prefill_tokens = 128;  // as workers have it
  options.policy = Policy("cost");
  const FairnessFigures figures = RunKeys(options, 600, GetParam(), /*seed=*/5);
  std::cout << "p99 of nine keys, first token " << figures.alike.first_token.p99
            << " s, end " << figures.alike.end.p99 << " s; beside a key with "
            << "ten times the load " << figures.flooded.first_token.p99
            << " s and " << figures.flooded.end.p99 << " s; its own end "
            << figures.flood.end.p99 << " s, its share of the service "
            << figures.flood_share << "\n";
  EXPECT_LT(figures.first_token_ratio(), 1.2);
  EXPECT_LT(figures.end_ratio(), 1.2);
  EXPECT_EQ(figures.wrongly_over, 0);
  // It does not starve.
  EXPECT_GT(figures.flood_share, 0.04);
}

INSTANTIATE_TEST_SUITE_P(Loads, FairnessTest, ::testing::Values(0.5, 0.8));

}  // namespace
}  // namespace caravan::simulation
