#include "services/router/worker_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <ostream>
#include <string>

#include "tests/services/router/fleet_fixture.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace caravan::router {
namespace {

using ::testing::ElementsAre;
using testing::HasReason;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Registered = WorkerRegistry::Registered;

class WorkerRegistryTest : public ::testing::Test {
 protected:
  ReplicaState StateOf(const std::string& worker_id) {
    return registry_.StateOf(*registry_.FindByWorker(worker_id));
  }

  testing::ManualClock clock_;
  WorkerRegistry registry_{RegistryOptions(), &clock_};
};

TEST_F(WorkerRegistryTest, ARegisteredReplicaIsReady) {
  ASSERT_OK_AND_ASSIGN(const Registered registered,
                       registry_.Register(1, TestReplica("w1")));
  EXPECT_EQ(registered, Registered::kNew);
  EXPECT_EQ(StateOf("w1"), ReplicaState::kReady);
  EXPECT_THAT(registry_.known_models(), ElementsAre("demo"));
}

TEST_F(WorkerRegistryTest, TwoMissedHeartbeatsMakeItSuspectFourDead) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  clock_.Advance(absl::Milliseconds(1200));
  EXPECT_EQ(StateOf("w1"), ReplicaState::kReady);
  clock_.Advance(absl::Milliseconds(50));
  EXPECT_EQ(StateOf("w1"), ReplicaState::kSuspect);
  clock_.Advance(absl::Milliseconds(950));
  EXPECT_THAT(registry_.RemoveDead(), IsEmpty());
  clock_.Advance(absl::Milliseconds(50));
  EXPECT_THAT(registry_.RemoveDead(), ElementsAre("w1"));
  EXPECT_TRUE(registry_.replicas().empty());
}

TEST_F(WorkerRegistryTest, AHeartbeatMakesASuspectReadyAgain) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  clock_.Advance(absl::Seconds(2));
  EXPECT_EQ(StateOf("w1"), ReplicaState::kSuspect);
  ASSERT_OK(registry_.Heartbeat(1, {}, /*draining=*/false));
  EXPECT_EQ(StateOf("w1"), ReplicaState::kReady);
}

TEST_F(WorkerRegistryTest, AHeartbeatAfterDeathAsksForANewRegistration) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  clock_.Advance(absl::Seconds(3));
  registry_.RemoveDead();
  EXPECT_THAT(registry_.Heartbeat(1, {}, false),
              HasReason(Reason::kNoReplica, HasSubstr("register again")));
}

TEST_F(WorkerRegistryTest, ABrokenStreamIsSuspectUntilItComesBack) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  EXPECT_TRUE(registry_.Disconnect(1));
  EXPECT_EQ(StateOf("w1"), ReplicaState::kSuspect);
  ASSERT_OK_AND_ASSIGN(const Registered registered,
                       registry_.Register(2, TestReplica("w1")));
  EXPECT_EQ(registered, Registered::kUpdated);
  EXPECT_EQ(StateOf("w1"), ReplicaState::kReady);
}

TEST_F(WorkerRegistryTest, TheOldStreamsEndDoesNotHurtTheNewOne) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  ASSERT_OK(registry_.Register(2, TestReplica("w1")));
  EXPECT_FALSE(registry_.Disconnect(1));
  EXPECT_EQ(StateOf("w1"), ReplicaState::kReady);
  EXPECT_THAT(registry_.Heartbeat(1, {}, false), HasReason(Reason::kNoReplica));
  EXPECT_OK(registry_.Heartbeat(2, {}, false));
}

TEST_F(WorkerRegistryTest, ADrainingReplicaIsGoneWithItsStream) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  ASSERT_OK(registry_.Heartbeat(1, {}, /*draining=*/true));
  EXPECT_EQ(StateOf("w1"), ReplicaState::kDraining);
  EXPECT_FALSE(registry_.Disconnect(1));
  EXPECT_TRUE(registry_.replicas().empty());
  EXPECT_THAT(registry_.known_models(), ElementsAre("demo"));
}

TEST_F(WorkerRegistryTest, ANewEpochForgetsLoadAndCredit) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  ReplicaLoad load;
  load.running_count = 7;
  ASSERT_OK(registry_.Heartbeat(1, load, false));
  registry_.AddCredit(*registry_.FindByWorker("w1"), {{}, 1, 100, 10});
  ReplicaInfo restarted = TestReplica("w1");
  restarted.epoch = 2;
  ASSERT_OK_AND_ASSIGN(const Registered registered,
                       registry_.Register(2, restarted));
  EXPECT_EQ(registered, Registered::kNewEpoch);
  const Replica& replica = *registry_.FindByWorker("w1");
  EXPECT_EQ(replica.load.running_count, 0);
  EXPECT_EQ(registry_.CreditOf(replica).sequences, 0);
}

TEST_F(WorkerRegistryTest, CreditCountsUntilAHeartbeatCanShowIt) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  Replica& replica = *registry_.FindByWorker("w1");
  registry_.AddCredit(replica, {{}, 1, 100, 10});
  clock_.Advance(absl::Milliseconds(90));
  registry_.AddCredit(replica, {{}, 1, 50, 5});
  EXPECT_EQ(registry_.CreditOf(replica).prefill_tokens, 150);

  clock_.Advance(absl::Milliseconds(10));
  ASSERT_OK(registry_.Heartbeat(1, {}, false));
  EXPECT_EQ(registry_.CreditOf(replica).prefill_tokens, 50);
  EXPECT_EQ(registry_.CreditOf(replica).blocks, 5);
}

TEST_F(WorkerRegistryTest, CreditExpiresWithoutHeartbeats) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  Replica& replica = *registry_.FindByWorker("w1");
  registry_.AddCredit(replica, {{}, 1, 100, 10});
  clock_.Advance(absl::Seconds(2));
  EXPECT_EQ(registry_.CreditOf(replica).sequences, 0);
}

TEST_F(WorkerRegistryTest, AnotherTokenizerForTheSameWeightsIsRefused) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  ReplicaInfo other = TestReplica("w2");
  other.identity.tokenizer_id = std::string(32, 'x');
  EXPECT_THAT(registry_.Register(2, other),
              HasReason(Reason::kIdentityMismatch, HasSubstr("w1")));
  other.identity.weights_id = std::string(32, 'v');  // a roll-out
  EXPECT_OK(registry_.Register(2, other));
}

TEST_F(WorkerRegistryTest, AnotherFingerprintOfTheSameClassIsRefused) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  ReplicaInfo other = TestReplica("w2");
  other.identity.fingerprint = std::string(32, 'x');
  EXPECT_THAT(registry_.Register(2, other),
              HasReason(Reason::kIdentityMismatch,
                        HasSubstr("class cpu/v1 must equal that of w1")));
  other.identity.numerics_class = "cpu/v2";
  EXPECT_OK(registry_.Register(2, other));
}

TEST_F(WorkerRegistryTest, ALivingReplicasIdCannotBeTakenFromElsewhere) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  ReplicaInfo thief = TestReplica("w1");
  thief.address = "elsewhere:1";
  EXPECT_THAT(registry_.Register(2, thief),
              HasReason(Reason::kIdentityMismatch, HasSubstr("w1:8100")));
  registry_.Disconnect(1);
  EXPECT_OK(registry_.Register(2, thief));
}

TEST_F(WorkerRegistryTest, AStreamSpeaksForOneReplica) {
  ASSERT_OK(registry_.Register(1, TestReplica("w1")));
  EXPECT_THAT(registry_.Register(1, TestReplica("w2")),
              HasReason(Reason::kInvalidField, HasSubstr("worker_id")));
}

TEST_F(WorkerRegistryTest, TheFleetHasAnUpperBound) {
  RegistryOptions options;
  options.max_replicas = 1;
  WorkerRegistry registry(options, &clock_);
  ASSERT_OK(registry.Register(1, TestReplica("w1")));
  EXPECT_THAT(registry.Register(2, TestReplica("w2")),
              HasReason(Reason::kQueueFull, HasSubstr("1 replicas")));
}

struct BadField {
  std::string field;
  std::function<void(ReplicaInfo&)> spoil;
};

void PrintTo(const BadField& value, std::ostream* out) { *out << value.field; }

class RegistrationFieldTest : public ::testing::TestWithParam<BadField> {};

TEST_P(RegistrationFieldTest, IsRefusedByName) {
  testing::ManualClock clock;
  WorkerRegistry registry(RegistryOptions(), &clock);
  ReplicaInfo info = TestReplica("w1");
  GetParam().spoil(info);
  EXPECT_THAT(registry.Register(1, info),
              HasReason(Reason::kInvalidField, HasSubstr(GetParam().field)));
  EXPECT_TRUE(registry.replicas().empty());
}

INSTANTIATE_TEST_SUITE_P(
    Fields, RegistrationFieldTest,
    ::testing::Values(
        BadField{"worker_id", [](ReplicaInfo& i) { i.worker_id = ""; }},
        BadField{"worker_id",
                 [](ReplicaInfo& i) { i.worker_id = std::string(257, 'w'); }},
        BadField{"address", [](ReplicaInfo& i) { i.address = "host"; }},
        BadField{"epoch", [](ReplicaInfo& i) { i.epoch = 0; }},
        BadField{"model.name", [](ReplicaInfo& i) { i.model = ""; }},
        BadField{"weights_id",
                 [](ReplicaInfo& i) { i.identity.weights_id = ""; }},
        BadField{"numerics_class",
                 [](ReplicaInfo& i) { i.identity.numerics_class = ""; }},
        BadField{"fingerprint",
                 [](ReplicaInfo& i) { i.identity.fingerprint = "short"; }},
        BadField{"tokenizer_id",
                 [](ReplicaInfo& i) { i.identity.tokenizer_id = ""; }},
        BadField{"template_id",
                 [](ReplicaInfo& i) { i.identity.template_id = "short"; }},
        BadField{"context_length",
                 [](ReplicaInfo& i) { i.context_length = 0; }},
        BadField{"vocabulary_size",
                 [](ReplicaInfo& i) { i.vocabulary_size = -1; }},
        BadField{"block_size", [](ReplicaInfo& i) { i.block_size = 32; }},
        BadField{"block_count", [](ReplicaInfo& i) { i.block_count = 0; }},
        BadField{"max_running_count",
                 [](ReplicaInfo& i) { i.max_running_count = 0; }},
        BadField{"roles", [](ReplicaInfo& i) { i.takes_whole = false; }}));

}  // namespace
}  // namespace caravan::router
