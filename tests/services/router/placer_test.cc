#include "services/router/placer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/strings.h"
#include "services/router/policy_factory.h"
#include "tests/services/router/fleet_fixture.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace caravan::router {
namespace {

using ::testing::ElementsAre;
using testing::HasReason;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class PlacerTest : public ::testing::Test {
 protected:
  PlacerTest() : placer_({}, &clock_, MakePolicy("cost", 1).value()) {}

  // Stream n speaks for worker "wn".
  void Add(int n, const std::string& model = "demo") {
    AddInfo(n, TestReplica(StrCat("w", n), model));
  }
  void AddInfo(int n, const ReplicaInfo& info) {
    ASSERT_OK(placer_.Register(n, info));
  }

  static PlaceQuery Query(const std::string& model = "demo") {
    PlaceQuery query;
    query.model = model;
    query.prompt_tokens = 160;
    query.expected_output_tokens = 32;
    return query;
  }

  std::vector<std::string> Targets(const PlaceQuery& query) {
    std::vector<std::string> ids;
    const auto placements = placer_.Place(query);
    EXPECT_OK(placements);
    if (!placements.ok()) return ids;
    for (const Placement& p : *placements) ids.push_back(p.replica.worker_id);
    return ids;
  }

  testing::ManualClock clock_;
  Placer placer_;
};

TEST_F(PlacerTest, GivesUpToFourTargetsOfTheModel) {
  for (int n = 1; n <= 6; ++n) Add(n);
  Add(7, "other");
  EXPECT_EQ(Targets(Query()).size(), 4u);
  EXPECT_THAT(Targets(Query("other")), ElementsAre("w7"));
}

TEST_F(PlacerTest, ABurstDoesNotPileUp) {
  for (int n = 1; n <= 4; ++n) Add(n);
  std::map<std::string, int> firsts;
  for (int i = 0; i < 32; ++i) ++firsts[Targets(Query()).front()];
  EXPECT_THAT(firsts, ElementsAre(std::pair("w1", 8), std::pair("w2", 8),
                                  std::pair("w3", 8), std::pair("w4", 8)));
}

TEST_F(PlacerTest, ThePrefixDecidesAmongEquals) {
  Add(1);
  Add(2);
  Add(3);
  PlaceQuery query = Query();
  query.chains = {TestChain(10, /*first_id=*/1), TestChain(10)};
  placer_.ApplyKvChange(2, {1, false, query.chains[1], {}});
  ASSERT_OK_AND_ASSIGN(const auto placements, placer_.Place(query));
  EXPECT_EQ(placements[0].replica.worker_id, "w2");
  EXPECT_EQ(placements[0].matched_blocks, 10);
  EXPECT_EQ(placements[1].matched_blocks, 0);
}

TEST_F(PlacerTest, NoMoreBlocksMatchThanThePromptHas) {
  Add(1);
  PlaceQuery query = Query();
  query.prompt_tokens = 40;
  query.chains = {TestChain(10)};
  placer_.ApplyKvChange(1, {1, false, query.chains[0], {}});
  ASSERT_OK_AND_ASSIGN(const auto placements, placer_.Place(query));
  EXPECT_EQ(placements[0].matched_blocks, 2);
}

TEST_F(PlacerTest, AnUnknownModelIsAnsweredWithTheKnownNames) {
  Add(1, "alpha");
  Add(2, "beta");
  EXPECT_THAT(placer_.Place(Query("gamma")),
              HasReason(Reason::kModelNotFound,
                        HasSubstr("one of alpha, beta; got gamma")));
}

TEST_F(PlacerTest, BeforeAnyRegistrationTryingAgainCanHelp) {
  const auto placements = placer_.Place(Query());
  EXPECT_THAT(placements, HasReason(Reason::kNoReplica));
  EXPECT_TRUE(RetryAfterOf(placements.status()).has_value());
}

TEST_F(PlacerTest, AModelWhoseReplicasAreGoneIsStillKnown) {
  Add(1);
  Add(2, "other");
  placer_.Disconnect(1);
  clock_.Advance(absl::Seconds(3));
  EXPECT_THAT(placer_.Tick(), UnorderedElementsAre("w1", "w2"));
  const auto placements = placer_.Place(Query());
  EXPECT_THAT(placements, HasReason(Reason::kNoReplica));
  EXPECT_EQ(RetryAfterOf(placements.status()), absl::Seconds(1));
}

TEST_F(PlacerTest, AnEmptyNameMeansTheOnlyModel) {
  Add(1);
  EXPECT_THAT(Targets(Query("")), ElementsAre("w1"));
  Add(2, "other");
  EXPECT_THAT(placer_.Place(Query("")),
              HasReason(Reason::kInvalidField, HasSubstr("demo, other")));
}

TEST_F(PlacerTest, ExcludedSuspectAndDrainingReplicasGetNothing) {
  for (int n = 1; n <= 4; ++n) Add(n);
  placer_.Disconnect(1);
  ASSERT_OK(placer_.Heartbeat(2, {}, /*draining=*/true));
  PlaceQuery query = Query();
  query.excluded_worker_ids = {"w3", "no such worker"};
  EXPECT_THAT(Targets(query), ElementsAre("w4"));
  query.excluded_worker_ids.push_back("w4");
  EXPECT_THAT(placer_.Place(query), HasReason(Reason::kNoReplica));
}

TEST_F(PlacerTest, ARequiredClassIsKept) {
  Add(1);
  ReplicaInfo gpu = TestReplica("w2");
  gpu.identity = TestIdentity("cuda/v1");
  AddInfo(2, gpu);
  PlaceQuery query = Query();
  query.required_identity = TestIdentity("cuda/v1");
  EXPECT_THAT(Targets(query), ElementsAre("w2"));
  query.required_identity->fingerprint = std::string(32, '?');
  const auto placements = placer_.Place(query);
  EXPECT_THAT(placements,
              HasReason(Reason::kNoReplicaOfClass, HasSubstr("cuda/v1")));
  EXPECT_TRUE(RetryAfterOf(placements.status()).has_value());
}

TEST_F(PlacerTest, RequiredFeaturesAreRespected) {
  Add(1);
  ReplicaInfo capable = TestReplica("w2");
  capable.features = {1, 3};
  AddInfo(2, capable);
  PlaceQuery query = Query();
  query.required_features = {3, 1};
  EXPECT_THAT(Targets(query), ElementsAre("w2"));
  query.required_features = {3, 4};
  EXPECT_THAT(placer_.Place(query), HasReason(Reason::kUnsupportedFeature));
}

TEST_F(PlacerTest, AReplicaThatKeepsFailingRestsForAWhile) {
  Add(1);
  Add(2);
  PlaceQuery query = Query();
  query.excluded_worker_ids = {"w1"};
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(Targets(query), ElementsAre("w2"));
    clock_.Advance(absl::Milliseconds(150));
    ASSERT_OK(placer_.Heartbeat(1, {}, false));
    ASSERT_OK(placer_.Heartbeat(2, {}, false));
  }
  EXPECT_EQ(placer_.CountByState(), (std::array<int, 4>{1, 0, 0, 1}));
  EXPECT_THAT(Targets(Query()), ElementsAre("w2"));
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(Targets(Query()), UnorderedElementsAre("w1", "w2"));
}

TEST_F(PlacerTest, ABrokenReplicaIsBetterThanNone) {
  Add(1);
  PlaceQuery query = Query();
  query.excluded_worker_ids = {"w1"};
  for (int i = 0; i < 5; ++i) {
    EXPECT_FALSE(placer_.Place(query).ok());
    clock_.Advance(absl::Milliseconds(150));
  }
  EXPECT_EQ(placer_.CountByState(), (std::array<int, 4>{0, 0, 0, 1}));
  EXPECT_THAT(Targets(Query()), ElementsAre("w1"));
}

TEST_F(PlacerTest, WhoIsReadyIsKnownWithoutAnyEvent) {
  Add(1);
  Add(2);
  EXPECT_THAT(Targets(Query()), UnorderedElementsAre("w1", "w2"));
  clock_.Advance(absl::Milliseconds(700));
  ASSERT_OK(placer_.Heartbeat(2, {}, /*draining=*/false));
  EXPECT_THAT(Targets(Query()), UnorderedElementsAre("w1", "w2"));
  clock_.Advance(absl::Milliseconds(600));  // w1 has missed two
  EXPECT_THAT(Targets(Query()), ElementsAre("w2"));
  ASSERT_OK(placer_.Heartbeat(1, {}, /*draining=*/false));
  EXPECT_THAT(Targets(Query()), UnorderedElementsAre("w1", "w2"));
}

TEST_F(PlacerTest, ANewEpochForgetsTheBlocks) {
  Add(1);
  placer_.ApplyKvChange(1, {1, false, TestChain(3), {}});
  EXPECT_EQ(placer_.index().entry_count(), 3);
  Add(1);
  EXPECT_EQ(placer_.index().entry_count(), 3);
  ReplicaInfo restarted = TestReplica("w1");
  restarted.epoch = 2;
  AddInfo(1, restarted);
  EXPECT_EQ(placer_.index().entry_count(), 0);
}

TEST_F(PlacerTest, TheDeadLeaveNoBlocks) {
  Add(1);
  placer_.ApplyKvChange(1, {1, false, TestChain(3), {}});
  clock_.Advance(absl::Seconds(3));
  EXPECT_THAT(placer_.Tick(), ElementsAre("w1"));
  EXPECT_EQ(placer_.index().entry_count(), 0);
  EXPECT_EQ(placer_.ApplyKvChange(1, {2, false, TestChain(3), {}}),
            BlockIndex::Applied::kRepeated);
  EXPECT_EQ(placer_.index().entry_count(), 0);
}

}  // namespace
}  // namespace caravan::router
