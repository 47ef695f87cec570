#include "services/router/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "common/strings.h"
#include "services/router/policy_factory.h"
#include "tests/support/status_matchers.h"

namespace caravan::router {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSeed = 7;

struct Fleet {
  explicit Fleet(size_t size) : ids(size), candidates(size) {
    for (size_t i = 0; i < size; ++i) {
      ids[i] = StrCat("w", i);
      candidates[i].worker_id = ids[i];
      candidates[i].block_count = 1000;
      candidates[i].max_running_count = 32;
    }
  }
  CandidateTable Table() const { return CandidateTable(candidates); }

  std::vector<std::string> ids;
  std::vector<Candidate> candidates;
};

PlacementQuery Prompt(int32_t tokens, const std::string& key = "") {
  PlacementQuery query;
  query.prompt_tokens = tokens;
  query.expected_output_tokens = 64;
  query.affinity_key = key;
  return query;
}

std::unique_ptr<Policy> Make(std::string_view name) {
  return MakePolicy(name, kSeed).value();
}

// What every policy promises.
class PolicyContractTest : public ::testing::TestWithParam<std::string_view> {};

TEST_P(PolicyContractTest, RanksEachCandidateOnce) {
  const std::unique_ptr<Policy> policy = Make(GetParam());
  for (size_t size = 0; size < 9; ++size) {
    Fleet fleet(size);
    for (size_t i = 0; i < size; ++i) {
      fleet.candidates[i].load.running_count = static_cast<int32_t>(i % 3);
    }
    for (int turn = 0; turn < 5; ++turn) {
      std::vector<size_t> order =
          policy->Rank(Prompt(100), fleet.Table(), SIZE_MAX);
      std::sort(order.begin(), order.end());
      std::vector<size_t> all(size);
      std::iota(all.begin(), all.end(), size_t{0});
      EXPECT_EQ(order, all);
    }
  }
}

TEST_P(PolicyContractTest, RanksNoMoreThanWantedAndNobodyWhoIsAway) {
  const std::unique_ptr<Policy> policy = Make(GetParam());
  Fleet fleet(6);
  fleet.candidates[0].available = false;
  fleet.candidates[3].available = false;
  for (size_t most = 0; most < 8; ++most) {
    const std::vector<size_t> order =
        policy->Rank(Prompt(100), fleet.Table(), most);
    EXPECT_EQ(order.size(), std::min<size_t>(most, 4));
    for (const size_t i : order) EXPECT_TRUE(fleet.candidates[i].available);
  }
}

TEST_P(PolicyContractTest, EqualReplicasShareABurst) {
  const std::unique_ptr<Policy> policy = Make(GetParam());
  Fleet fleet(4);
  constexpr int kRequests = 400;
  for (int i = 0; i < kRequests; ++i) {
    const size_t first =
        policy->Rank(Prompt(100, StrCat("key", i)), fleet.Table(), SIZE_MAX)
            .front();
    // What the placer does: credit, and no heartbeat in between.
    fleet.candidates[first].credit.sequences += 1;
    fleet.candidates[first].credit.prefill_tokens += 100;
    fleet.candidates[first].credit.blocks += 11;
  }
  for (const Candidate& candidate : fleet.candidates) {
    EXPECT_NEAR(candidate.credit.sequences, kRequests / 4, kRequests / 12)
        << candidate.worker_id;
  }
}

TEST_P(PolicyContractTest, ExtremeNumbersAreNoTrouble) {
  const std::unique_ptr<Policy> policy = Make(GetParam());
  Fleet fleet(2);
  Candidate& full = fleet.candidates[0];
  full.load = {INT32_MAX,     INT32_MAX, INT32_MAX, INT32_MAX,
               INT64_MAX / 2, 1e30f,     1e-30f};
  full.credit = {{}, INT32_MAX, INT64_MAX / 4, INT32_MAX};
  full.matched_blocks = INT32_MAX / 16;
  EXPECT_EQ(policy->Rank(Prompt(INT32_MAX), fleet.Table(), SIZE_MAX).size(),
            2u);
}

TEST_P(PolicyContractTest, KnowsItsName) {
  EXPECT_EQ(Make(GetParam())->name(), GetParam());
}

INSTANTIATE_TEST_SUITE_P(All, PolicyContractTest,
                         ::testing::ValuesIn(PolicyNames()),
                         [](const auto& info) {
                           return std::string(info.param);
                         });

TEST(PolicyFactoryTest, AnUnknownNameIsAnErrorWithTheList) {
  EXPECT_THAT(MakePolicy("best", kSeed),
              testing::HasReason(Reason::kInvalidField,
                                 HasSubstr("overlap_cost; got best")));
}

TEST(CostPolicyTest, ACachedPrefixWinsAmongEquals) {
  Fleet fleet(3);
  fleet.candidates[1].matched_blocks = 10;
  EXPECT_EQ(Make("cost")->Rank(Prompt(320), fleet.Table(), SIZE_MAX).front(),
            1u);
}

TEST(CostPolicyTest, ACachedPrefixLosesWhenItsReplicaIsBusierThanItSaves) {
  Fleet fleet(2);
  fleet.candidates[0].matched_blocks = 10;
  fleet.candidates[0].load.queued_prefill_tokens = 3000;
  EXPECT_EQ(Make("cost")->Rank(Prompt(320), fleet.Table(), SIZE_MAX).front(),
            1u);
  fleet.candidates[0].load.queued_prefill_tokens = 100;
  EXPECT_EQ(Make("cost")->Rank(Prompt(320), fleet.Table(), SIZE_MAX).front(),
            0u);
}

// Where all have much to do, work saved is worth more than one's own wait.
TEST(CostPolicyTest, ABusyFleetKeepsPrefixesTogether) {
  Fleet fleet(2);
  fleet.candidates[0].matched_blocks = 10;
  fleet.candidates[0].load.queued_prefill_tokens = 400;
  EXPECT_EQ(Make("cost")->Rank(Prompt(320), fleet.Table(), 1).front(), 1u);
  fleet.candidates[0].load.queued_prefill_tokens += 2000;
  fleet.candidates[1].load.queued_prefill_tokens += 2000;
  EXPECT_EQ(Make("cost")->Rank(Prompt(320), fleet.Table(), 1).front(), 0u);
}

TEST(CostPolicyTest, PrioritySaysHowMuchAFirstTokenMayWaitForOthers) {
  const auto first = [](int32_t priority, int64_t queued_tokens) {
    Fleet fleet(2);
    fleet.candidates[0].matched_blocks = 20;
    fleet.candidates[0].load.queued_prefill_tokens = queued_tokens;
    PlacementQuery query = Prompt(320);
    query.priority = priority;
    return Make("cost")->Rank(query, fleet.Table(), 1).front();
  };
  EXPECT_EQ(first(1, 330), 1u);
  EXPECT_EQ(first(0, 330), 0u);
  EXPECT_EQ(first(0, 340), 1u);
  EXPECT_EQ(first(-1, 340), 0u);
}

TEST(CostPolicyTest, AFullCacheRepels) {
  Fleet fleet(2);
  fleet.candidates[0].load.leased_blocks = 990;
  fleet.candidates[1].load.leased_blocks = 900;
  fleet.candidates[1].load.running_count = 10;
  EXPECT_EQ(Make("cost")->Rank(Prompt(320), fleet.Table(), SIZE_MAX).front(),
            1u);
}

TEST(CostPolicyTest, WaitingSequencesRepel) {
  Fleet fleet(2);
  fleet.candidates[0].load.running_count = 32;
  fleet.candidates[0].load.waiting_count = 3;
  fleet.candidates[1].load.leased_blocks = 100;
  EXPECT_EQ(Make("cost")->Rank(Prompt(320), fleet.Table(), SIZE_MAX).front(),
            1u);
}

TEST(CostPolicyTest, ASlowReplicasPrefillCostsMore) {
  Fleet fleet(2);
  fleet.candidates[0].load.prefill_tokens_per_second = 100;
  fleet.candidates[1].load.prefill_tokens_per_second = 1000;
  fleet.candidates[1].load.leased_blocks = 50;
  EXPECT_EQ(Make("cost")->Rank(Prompt(320), fleet.Table(), SIZE_MAX).front(),
            1u);
}

TEST(RoundRobinPolicyTest, TakesTurns) {
  Fleet fleet(3);
  const std::unique_ptr<Policy> policy = Make("round_robin");
  std::vector<size_t> firsts;
  for (int i = 0; i < 6; ++i) {
    firsts.push_back(policy->Rank(Prompt(1), fleet.Table(), SIZE_MAX).front());
  }
  for (size_t i = 1; i < firsts.size(); ++i) {
    EXPECT_EQ(firsts[i], (firsts[i - 1] + 1) % 3);
  }
}

TEST(LeastLoadPolicyTest, CountsRunningWaitingAndPlacedOnes) {
  Fleet fleet(3);
  fleet.candidates[0].load.running_count = 2;
  fleet.candidates[1].load.waiting_count = 3;
  fleet.candidates[2].credit.sequences = 1;
  EXPECT_EQ(Make("least_load")->Rank(Prompt(1), fleet.Table(), SIZE_MAX),
            (std::vector<size_t>{2, 0, 1}));
}

TEST(PolicyTest, RoutersThatKnowTheSameChooseDifferentOnesOfEqualReplicas) {
  Fleet fleet(100);
  for (const char* name : {"cost", "least_load"}) {
    std::set<size_t> chosen;
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      chosen.insert(MakePolicy(name, seed)
                        .value()
                        ->Rank(Prompt(320), fleet.Table(), SIZE_MAX)
                        .front());
    }
    EXPECT_GT(chosen.size(), 12u) << name;
  }
}

TEST(PowerOfTwoPolicyTest, TheBusiestOfManyIsNeverFirst) {
  Fleet fleet(5);
  fleet.candidates[3].load.running_count = 9;
  const std::unique_ptr<Policy> policy = Make("power_of_two");
  for (int i = 0; i < 100; ++i) {
    EXPECT_NE(policy->Rank(Prompt(1), fleet.Table(), SIZE_MAX).front(), 3u);
  }
}

TEST(PowerOfTwoPolicyTest, OneSeedGivesOneSequence) {
  Fleet fleet(8);
  const std::unique_ptr<Policy> a = Make("power_of_two");
  const std::unique_ptr<Policy> b = Make("power_of_two");
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(a->Rank(Prompt(1), fleet.Table(), SIZE_MAX),
              b->Rank(Prompt(1), fleet.Table(), SIZE_MAX));
  }
}

TEST(ConsistentHashPolicyTest, AKeyKeepsItsReplica) {
  Fleet fleet(5);
  const std::unique_ptr<Policy> policy = Make("consistent_hash");
  const size_t first =
      policy->Rank(Prompt(1, "user-1"), fleet.Table(), SIZE_MAX).front();
  std::reverse(fleet.candidates.begin(), fleet.candidates.end());
  EXPECT_EQ(
      4 - policy->Rank(Prompt(1, "user-1"), fleet.Table(), SIZE_MAX).front(),
      first);
}

TEST(ConsistentHashPolicyTest, OnlyTheKeysOfALostReplicaMove) {
  Fleet fleet(5);
  const std::unique_ptr<Policy> policy = Make("consistent_hash");
  const std::vector<Candidate> fewer(fleet.candidates.begin(),
                                     fleet.candidates.end() - 1);
  int moved = 0;
  for (int i = 0; i < 500; ++i) {
    const PlacementQuery query = Prompt(1, StrCat("key", i));
    const size_t before = policy->Rank(query, fleet.Table(), SIZE_MAX).front();
    const size_t after =
        policy->Rank(query, CandidateTable(fewer), SIZE_MAX).front();
    if (before == 4) {
      ++moved;
    } else {
      EXPECT_EQ(after, before);
    }
  }
  EXPECT_NEAR(moved, 100, 40);
}

TEST(ConsistentHashPolicyTest, AReplicaOverItsShareStandsBack) {
  Fleet fleet(3);
  const std::unique_ptr<Policy> policy = Make("consistent_hash");
  const PlacementQuery query = Prompt(1, "hot");
  const size_t owner = policy->Rank(query, fleet.Table(), SIZE_MAX).front();
  fleet.candidates[owner].load.running_count = 20;
  EXPECT_EQ(policy->Rank(query, fleet.Table(), SIZE_MAX).back(), owner);
}

}  // namespace
}  // namespace caravan::router
