#include <gtest/gtest.h>

#include "tests/worker/engine/engine_fixture.h"
#include "worker/engine/engine.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::HasReason;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class EngineSubmitTest : public EngineFixture {};

TEST_F(EngineSubmitTest, OptionsNameTheFlagTheLimitAndTheValue) {
  options_.depth = 0;
  EXPECT_EQ(std::string(options_.Validate().message()),
            "--depth must be at least 1; got 0");
  options_.depth = 1;
  options_.block_count = 0;
  EXPECT_THAT(Engine::Create(options_, nullptr, &log_, &clock_),
              HasReason(Reason::kInvalidField, HasSubstr("--kv-blocks")));
}

TEST_F(EngineSubmitTest, WhatCanNeverFitIsRefused) {
  options_.block_count = 3;
  Start();
  // The last token's keys and values are never needed.
  EXPECT_OK(engine_->Submit(Request(1, Prompt(40), 9)));
  EXPECT_THAT(engine_->Submit(Request(2, Prompt(40), 10)),
              HasReason(Reason::kKvExhausted,
                        HasSubstr("at most 3 KV blocks of 16 tokens; got 4")));
  StepUntilIdle();
  EXPECT_EQ(Finishes()[0].output_token_count, 9);
}

TEST_F(EngineSubmitTest, PromptsBeyondTheContextAreRefused) {
  Start();
  EXPECT_THAT(engine_->Submit(Request(1, Prompt(200), 1)),
              HasReason(Reason::kPromptTooLong,
                        HasSubstr("at most 199 tokens; got 200")));
  EXPECT_OK(engine_->Submit(Request(1, Prompt(200), 0)));
  EXPECT_THAT(engine_->Submit(Request(2, Prompt(201), 0)),
              HasReason(Reason::kPromptTooLong));
}

TEST_F(EngineSubmitTest, MalformedGroupsAreRefused) {
  Start();
  GroupRequest request = Request(1, {}, 4);
  EXPECT_THAT(engine_->Submit(request),
              HasReason(Reason::kInvalidField, HasSubstr("prompt")));
  request.prompt = nullptr;
  EXPECT_THAT(engine_->Submit(request), HasReason(Reason::kInvalidField));
  EXPECT_THAT(engine_->Submit(Request(1, Prompt(4), 4, /*n=*/0)),
              HasReason(Reason::kInvalidField, HasSubstr("choices")));
  EXPECT_THAT(engine_->Submit(Request(1, Prompt(4), -1)),
              HasReason(Reason::kInvalidField, HasSubstr("max_tokens")));
  request = Request(1, Prompt(4), 4, /*n=*/2);
  request.choices[1].index = 0;
  EXPECT_THAT(engine_->Submit(request), HasReason(Reason::kInvalidField));
  request = Request(1, Prompt(4), 1);
  request.choices[0].output = {1, 2};
  EXPECT_THAT(engine_->Submit(request),
              HasReason(Reason::kInvalidField, HasSubstr("output_token_ids")));
  request = Request(1, Prompt(198), 10);
  request.choices[0].output = {1, 2, 3};
  EXPECT_THAT(engine_->Submit(request), HasReason(Reason::kInvalidField));
}

TEST_F(EngineSubmitTest, AnIdIsTakenOnceWhileItLives) {
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(4), 4)));
  EXPECT_THAT(engine_->Submit(Request(1, Prompt(4), 4)),
              HasReason(Reason::kInvalidField));
}

TEST_F(EngineSubmitTest, AFullQueueRefusesWithARetryTime) {
  options_.max_waiting = 3;
  options_.max_running = 1;
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(4), 4)));
  Step();
  ASSERT_OK(engine_->Submit(Request(2, Prompt(4), 4, /*n=*/2)));
  ASSERT_OK(engine_->Submit(Request(3, Prompt(4), 4)));
  const absl::Status full = engine_->Submit(Request(4, Prompt(4), 4));
  EXPECT_THAT(full, HasReason(Reason::kQueueFull,
                              HasSubstr("at most 3 sequences; got 4")));
  ASSERT_TRUE(RetryAfterOf(full).has_value());
  EXPECT_GE(*RetryAfterOf(full), absl::Milliseconds(100));
  Step();
  EXPECT_THAT(engine_->Submit(Request(4, Prompt(4), 4)),
              HasReason(Reason::kQueueFull));
  for (int i = 0; i < 4; ++i) Step();
  EXPECT_OK(engine_->Submit(Request(4, Prompt(4), 4)));
  StepUntilIdle();
}

TEST_F(EngineSubmitTest, ACancelWinsOverAQueuedSubmit) {
  Start();
  ASSERT_OK(engine_->Submit(Request(1, Prompt(4), 4)));
  engine_->Cancel(1);
  EXPECT_TRUE(engine_->Drained());
  EXPECT_TRUE(Step().idle);
  EXPECT_THAT(runner_->plans(), IsEmpty());
  EXPECT_THAT(log_.reports, IsEmpty());
  engine_->Cancel(77);  // never heard of
  EXPECT_TRUE(Step().idle);
}

TEST_F(EngineSubmitTest, CancelledChoicesOfAQueuedSubmitNeverRun) {
  options_.max_waiting = 3;
  Start();
  const GroupRequest request = Request(1, Prompt(4), 4, /*n=*/3);
  ASSERT_OK(engine_->Submit(request));
  engine_->CancelChoices(1, {0, 2, 5});
  engine_->CancelChoices(1, {});  // none of them
  ASSERT_OK(engine_->Submit(Request(2, Prompt(4), 4, /*n=*/2)));
  engine_->CancelChoices(2, {1, 0});
  engine_->CancelChoices(77, {0});  // never heard of
  StepUntilIdle();
  EXPECT_EQ(Tokens(1, 1), Alone(request, 1));
  EXPECT_THAT(Finishes(), SizeIs(1));
  EXPECT_EQ(Sum(&StepCounters::admitted), 1);
  EXPECT_TRUE(engine_->Drained());
}

TEST_F(EngineSubmitTest, DrainRefusesTheNewAndFinishesTheOld) {
  Start();
  const GroupRequest request = Request(1, Prompt(4), 4);
  ASSERT_OK(engine_->Submit(request));
  engine_->StartDrain();
  EXPECT_THAT(engine_->Submit(Request(2, Prompt(4), 4)),
              HasReason(Reason::kDraining));
  EXPECT_FALSE(engine_->Drained());
  StepUntilIdle();
  EXPECT_EQ(Tokens(1), Alone(request));
  EXPECT_TRUE(engine_->Drained());
}

}  // namespace
}  // namespace caravan::worker
