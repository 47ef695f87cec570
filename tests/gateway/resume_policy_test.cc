#include "gateway/resume_policy.h"

#include <gtest/gtest.h>

#include <utility>

#include "common/status/errors.h"
#include "tests/gateway/groups.h"
#include "tests/support/status_matchers.h"

namespace caravan::gateway {
namespace {

using ::caravan::testing::HasReason;

void Fail(PromptGroup& group, Reason reason, bool worker_died) {
  group.failure = MakeError(reason, "the placement failed");
  group.worker_died = worker_died;
}

TEST(ResumePolicyTest, WhatAWorkerLosesCanMoveAndWhatTheRequestLacksCannot) {
  EXPECT_TRUE(CanMove(Reason::kWorkerLost));
  EXPECT_TRUE(CanMove(Reason::kDraining));
  EXPECT_TRUE(CanMove(Reason::kStaleEpoch));
  EXPECT_TRUE(CanMove(Reason::kNumericFault));
  EXPECT_FALSE(CanMove(Reason::kKvExhausted));
  EXPECT_FALSE(CanMove(Reason::kInvalidField));
  EXPECT_FALSE(CanMove(Reason::kInternal));
}

TEST(ResumePolicyTest, OnlyTheLackOfReplicasAndRoutersPasses) {
  EXPECT_TRUE(MayPass(Reason::kNoReplica));
  EXPECT_TRUE(MayPass(Reason::kNoReplicaOfClass));
  EXPECT_TRUE(MayPass(Reason::kRouterUnavailable));
  EXPECT_FALSE(MayPass(Reason::kWorkerLost));
  EXPECT_FALSE(MayPass(Reason::kIdentityMismatch));
}

TEST(ResumePolicyTest, ACauseIsOneOfFourLabels) {
  EXPECT_EQ(ResumeCause(Reason::kWorkerLost), "lost");
  EXPECT_EQ(ResumeCause(Reason::kDraining), "drained");
  EXPECT_EQ(ResumeCause(Reason::kNumericFault), "fault");
  EXPECT_EQ(ResumeCause(Reason::kStaleEpoch), "other");
}

TEST(ResumePolicyTest, TheSecondDeathSuspectsTheRequest) {
  testing::Groups groups;
  PromptGroup& group = groups.Add({1, 2});
  Fail(group, Reason::kWorkerLost, /*worker_died=*/true);
  EXPECT_OK(CountFailure(group));
  EXPECT_EQ(group.excluded.size(), 1u);
  Fail(group, Reason::kNumericFault, /*worker_died=*/false);
  EXPECT_THAT(CountFailure(group), HasReason(Reason::kSuspectRequest));
}

TEST(ResumePolicyTest, WhoWaitsAtADyingWorkerIsNotSuspected) {
  testing::Groups groups;
  PromptGroup& group = groups.Add({1, 2});
  for (int i = 0; i < 4; ++i) {
    Fail(group, Reason::kWorkerLost, /*worker_died=*/true);
    group.queued = true;
    EXPECT_OK(CountFailure(group));
  }
  EXPECT_EQ(group.deaths, 0);
}

TEST(ResumePolicyTest, ARefusalIsNoDeathAndEndsAfterTheLastAttempt) {
  testing::Groups groups;
  PromptGroup& group = groups.Add({1, 2});
  for (int32_t i = 1; i < kMaxAttempts; ++i) {
    Fail(group, Reason::kStaleEpoch, /*worker_died=*/false);
    EXPECT_OK(CountFailure(group)) << i;
  }
  Fail(group, Reason::kStaleEpoch, /*worker_died=*/false);
  EXPECT_THAT(CountFailure(group), HasReason(Reason::kStaleEpoch));
  EXPECT_EQ(group.deaths, 0);
}

TEST(ResumePolicyTest, WhatCannotMoveIsNotCounted) {
  testing::Groups groups;
  PromptGroup& group = groups.Add({1, 2});
  Fail(group, Reason::kKvExhausted, /*worker_died=*/false);
  EXPECT_THAT(CountFailure(group), HasReason(Reason::kKvExhausted));
  EXPECT_EQ(group.attempts, 0);
  EXPECT_TRUE(group.excluded.empty());
}

}  // namespace
}  // namespace caravan::gateway
