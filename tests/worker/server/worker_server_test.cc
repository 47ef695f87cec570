#include "worker/server/worker_server.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "caravan/v1/kv.grpc.pb.h"
#include "caravan/v1/stage.grpc.pb.h"
#include "common/status/grpc_status.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/server/gated_runner.h"
#include "tests/worker/server/submits.h"
#include "tests/worker/server/test_session.h"

namespace caravan::worker {
namespace {

using ::caravan::testing::ConnectWorker;
using ::caravan::testing::GatedRunner;
using ::caravan::testing::GatedToken;
using ::caravan::testing::HandleLog;
using ::caravan::testing::HasReason;
using ::caravan::testing::MakeSubmit;
using ::caravan::testing::TestSession;
using ::testing::HasSubstr;

constexpr uint64_t kEpoch = 0xFEDCBA9876543210;
constexpr int32_t kVocabulary = 100;
constexpr int32_t kBlocks = 64;
constexpr int32_t kContext = 512;

WorkerFacts Facts() {
  WorkerFacts facts;
  facts.epoch = kEpoch;
  facts.model.set_name("test-model");
  facts.model.set_context_length(kContext);
  facts.model.set_vocabulary_size(kVocabulary);
  facts.model.set_block_count(kBlocks);
  facts.model.add_eos_token_ids(2);
  facts.memory.set_kv_bytes(1234);
  return facts;
}

WorkerServerOptions Options() {
  WorkerServerOptions options;
  options.engine.block_count = kBlocks;
  options.engine.context_length = kContext;
  options.engine.max_running = 8;
  options.engine.weights_id = std::string(32, 'w');
  options.engine.numerics_class = "test/v1";
  options.engine.fingerprint = std::string(32, 'f');
  return options;
}

class WorkerServerTest : public ::testing::Test {
 protected:
  ~WorkerServerTest() override { runner_.Release(); }

  void Start(WorkerServerOptions options = Options()) {
    ASSERT_OK_AND_ASSIGN(
        server_,
        WorkerServer::Start(std::move(options), Facts(), &runner_, &registry_,
                            &SystemClock::Get(), [this] { lost_.Notify(); }));
    stub_ = ConnectWorker(server_->port());
  }

  v1::GetWorkerInfoResponse Info() {
    grpc::ClientContext context;
    v1::GetWorkerInfoResponse response;
    const grpc::Status status =
        stub_->GetWorkerInfo(&context, v1::GetWorkerInfoRequest(), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  // Asks until the load fits; false after 10 s.
  template <typename Condition>
  bool EventuallyLoad(const Condition& condition) {
    const absl::Time end = absl::Now() + absl::Seconds(10);
    while (absl::Now() < end) {
      if (condition(Info().load())) return true;
    }
    return false;
  }
  // Serializes until a line is there; false after 10 s.
  bool EventuallyServes(const std::string& line) {
    const absl::Time end = absl::Now() + absl::Seconds(10);
    while (absl::Now() < end) {
      const std::string text = registry_.Serialize();
      if (text.find(line + "\n") != std::string::npos) return true;
    }
    return false;
  }
  bool EventuallyIdle() {
    return EventuallyLoad([](const v1::Load& load) {
      return load.leased_block_count() == 0 &&
             load.running_sequence_count() == 0 &&
             load.waiting_sequence_count() == 0;
    });
  }

  // The answer to a message says that those before it were taken.
  bool AwaitTaken(TestSession& session) {
    return session.SendCancel(99) && session.ReadUntilEnd(99) &&
           ReasonOf(*session.log(99).error) == Reason::kInvalidField;
  }

  v1::Submit Submit(uint64_t handle, int32_t max_tokens = 8) {
    return MakeSubmit(handle, {5, 6, 7}, kEpoch, max_tokens);
  }

  GatedRunner runner_;
  MetricsRegistry registry_;
  absl::Notification lost_;
  std::unique_ptr<WorkerServer> server_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
};

std::vector<int32_t> Counted(int32_t prompt_length, int32_t from, int32_t to) {
  std::vector<int32_t> tokens;
  for (int32_t p = from; p < to; ++p) {
    tokens.push_back(GatedToken(prompt_length, p));
  }
  return tokens;
}

TEST_F(WorkerServerTest, HelloTellsWhoTheWorkerIs) {
  Start();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  EXPECT_EQ(session.hello().epoch(), kEpoch);
  EXPECT_EQ(session.hello().sender_id(), server_->facts().worker_id);
  EXPECT_EQ(session.hello().features_size(), 4);
}

TEST_F(WorkerServerTest, ASessionWithoutStepsHearsSignsOfLife) {
  Start();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  EXPECT_EQ(session.hello().heartbeat_interval().nanos(),
            absl::ToInt64Nanoseconds(kSessionHeartbeat));
  for (int i = 0; i < 2; ++i) {
    const auto response = session.Read();
    ASSERT_TRUE(response.has_value());
    ASSERT_TRUE(response->has_heartbeat());
    EXPECT_EQ(response->heartbeat().load().block_count(), kBlocks);
  }
}

TEST_F(WorkerServerTest, AProtocolOfTheFutureIsRefused) {
  Start();
  TestSession session(*stub_);
  ASSERT_TRUE(session.SendHello(/*least=*/2, /*greatest=*/3));
  EXPECT_THAT(session.End(),
              HasReason(Reason::kProtocolMismatch, HasSubstr("[2, 3]")));
}

TEST_F(WorkerServerTest, AProtocolRangeThatOverlapsIsAccepted) {
  Start();
  TestSession session(*stub_);
  ASSERT_TRUE(session.SendHello(/*least=*/1, /*greatest=*/7));
  ASSERT_TRUE(session.Send(Submit(1)));
  ASSERT_TRUE(session.ReadUntilEnd(1));
}

TEST_F(WorkerServerTest, HelloComesFirstAndOnce) {
  Start();
  TestSession rude(*stub_);
  ASSERT_TRUE(rude.Send(Submit(1)));
  EXPECT_THAT(rude.End(), HasReason(Reason::kInvalidField, HasSubstr("hello")));
  TestSession twice(*stub_);
  ASSERT_TRUE(twice.Open());
  ASSERT_TRUE(twice.SendHello());
  EXPECT_THAT(twice.End(),
              HasReason(Reason::kInvalidField, HasSubstr("another hello")));
}

TEST_F(WorkerServerTest, ASubmitStreamsItsTokensAndFinishes) {
  Start();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  ASSERT_TRUE(session.Send(Submit(77, /*max_tokens=*/20)));
  ASSERT_TRUE(session.ReadUntilEnd(77));
  const HandleLog& log = session.log(77);
  EXPECT_FALSE(log.error.has_value());
  EXPECT_EQ(log.tokens.at(0), Counted(3, 0, 20));
  ASSERT_EQ(log.finishes.size(), 1u);
  EXPECT_EQ(log.finishes[0].reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(log.finishes[0].output_token_count(), 20);
  EXPECT_EQ(log.prompt_records, 1);
  EXPECT_TRUE(EventuallyIdle());
}

TEST_F(WorkerServerTest, AStopTokenEndsAChoiceWithItsId) {
  Start();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  v1::Submit submit = Submit(1, /*max_tokens=*/20);
  submit.mutable_stop()->add_stop_token_ids(GatedToken(3, 5));
  ASSERT_TRUE(session.Send(submit));
  ASSERT_TRUE(session.ReadUntilEnd(1));
  const HandleLog& log = session.log(1);
  EXPECT_EQ(log.tokens.at(0), Counted(3, 0, 6));
  EXPECT_EQ(log.finishes[0].reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(log.finishes[0].stop_token_id(), GatedToken(3, 5));
}

TEST_F(WorkerServerTest, ResumedChoicesContinueAtTheirPositions) {
  Start();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  v1::Submit submit = Submit(1, /*max_tokens=*/10);
  submit.mutable_choices(0)->set_index(3);
  for (const int32_t id : Counted(3, 0, 4)) {
    submit.mutable_choices(0)->add_output_token_ids(id);
  }
  v1::SubmitChoice* const fresh = submit.add_choices();
  fresh->set_index(5);
  ASSERT_TRUE(session.Send(submit));
  ASSERT_TRUE(session.ReadUntilEnd(1, /*choices=*/2));
  EXPECT_EQ(session.log(1).tokens.at(3), Counted(3, 4, 10));
  EXPECT_EQ(session.log(1).tokens.at(5), Counted(3, 0, 10));
}

TEST_F(WorkerServerTest, LogprobsAndCandidatesTravelWithTheirTokens) {
  Start();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  v1::Submit submit = Submit(1, /*max_tokens=*/1);
  submit.mutable_sampling()->set_logprob_count(2);
  ASSERT_TRUE(session.Send(submit));
  std::optional<v1::TokenRecord> token;
  while (!token.has_value()) {
    const auto response = session.Read();
    ASSERT_TRUE(response.has_value());
    if (response->step().tokens_size() > 0) token = response->step().tokens(0);
  }
  EXPECT_EQ(token->logprob(), -0.5f);
  EXPECT_EQ(token->rank(), 1);
  ASSERT_EQ(token->candidates_size(), 2);
  EXPECT_EQ(token->candidates(1).token_id(), 1);
}

TEST_F(WorkerServerTest, WithoutLogprobsThereAreNone) {
  Start();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  ASSERT_TRUE(session.Send(Submit(1, /*max_tokens=*/1)));
  while (const auto response = session.Read()) {
    if (response->step().tokens_size() == 0) continue;
    EXPECT_FALSE(response->step().tokens(0).has_logprob());
    EXPECT_FALSE(response->step().tokens(0).has_rank());
    return;
  }
  FAIL() << "no token came";
}

TEST_F(WorkerServerTest, OneStepGivesOneMessageToASession) {
  Start();
  runner_.Hold();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  ASSERT_TRUE(session.Send(Submit(1, /*max_tokens=*/16)));
  runner_.AwaitHeldStep();
  for (uint64_t handle = 2; handle <= 4; ++handle) {
    ASSERT_TRUE(session.Send(Submit(handle, /*max_tokens=*/16)));
  }
  ASSERT_TRUE(AwaitTaken(session));
  runner_.Release();
  for (uint64_t handle = 1; handle <= 4; ++handle) {
    ASSERT_TRUE(session.ReadUntilEnd(handle));
  }
  // Alone each would take 16 messages; together they share steps.
  EXPECT_GE(session.step_messages(), 16);
  EXPECT_LE(session.step_messages(), 20);
}

TEST_F(WorkerServerTest, ErrorsAreToldPerHandleAndTheSessionGoesOn) {
  Start();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  v1::Submit stale = Submit(1);
  stale.set_epoch(kEpoch + 1);
  v1::Submit featured = Submit(2);
  featured.add_required_features(v1::FEATURE_ADAPTER);
  v1::Submit hot = Submit(3);
  hot.mutable_sampling()->set_temperature(3);
  for (const v1::Submit& submit : {stale, featured, hot, Submit(4)}) {
    ASSERT_TRUE(session.Send(submit));
  }
  for (const uint64_t handle : {1, 2, 3, 4}) {
    ASSERT_TRUE(session.ReadUntilEnd(handle));
  }
  EXPECT_THAT(*session.log(1).error, HasReason(Reason::kStaleEpoch));
  EXPECT_THAT(*session.log(2).error, HasReason(Reason::kUnsupportedFeature));
  EXPECT_THAT(*session.log(3).error, HasReason(Reason::kInvalidField));
  EXPECT_FALSE(session.log(4).error.has_value());
}

TEST_F(WorkerServerTest, AHandleIsUsedOnce) {
  Start();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  ASSERT_TRUE(session.Send(Submit(1)));
  ASSERT_TRUE(session.ReadUntilEnd(1));
  ASSERT_TRUE(session.Send(Submit(1)));
  ASSERT_TRUE(
      session.ReadUntil([&] { return session.log(1).error.has_value(); }));
  EXPECT_THAT(*session.log(1).error,
              HasReason(Reason::kInvalidField, HasSubstr("handle")));
}

TEST_F(WorkerServerTest, ACancelFreesTheBlocks) {
  Start();
  runner_.Hold();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  ASSERT_TRUE(session.Send(Submit(1, /*max_tokens=*/400)));
  runner_.AwaitHeldStep();
  ASSERT_TRUE(session.SendCancel(1));
  ASSERT_TRUE(AwaitTaken(session));
  runner_.Release();
  EXPECT_TRUE(EventuallyIdle());
  ASSERT_TRUE(session.Send(Submit(2)));
  ASSERT_TRUE(session.ReadUntilEnd(2));
  EXPECT_TRUE(session.log(1).tokens.empty());
  EXPECT_TRUE(session.log(1).finishes.empty());
}

TEST_F(WorkerServerTest, ACancelWinsOverASubmitThatIsQueued) {
  Start();
  runner_.Hold();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  ASSERT_TRUE(session.Send(Submit(1)));
  runner_.AwaitHeldStep();
  ASSERT_TRUE(session.Send(Submit(2)));
  ASSERT_TRUE(session.SendCancel(2));
  ASSERT_TRUE(AwaitTaken(session));
  runner_.Release();
  ASSERT_TRUE(session.ReadUntilEnd(1));
  EXPECT_TRUE(EventuallyIdle());
  EXPECT_TRUE(session.log(2).tokens.empty());
}

TEST_F(WorkerServerTest, ACancelledChoiceEndsAndTheOthersGoOn) {
  Start();
  runner_.Hold();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  EXPECT_THAT(session.hello().features(),
              ::testing::Contains(v1::FEATURE_CANCEL_CHOICES));
  v1::Submit submit = Submit(1, /*max_tokens=*/20);
  submit.add_choices()->set_index(4);
  submit.add_choices()->set_index(2);
  ASSERT_TRUE(session.Send(submit));
  runner_.AwaitHeldStep();
  ASSERT_TRUE(session.SendCancel(1, {4, 9}));
  ASSERT_TRUE(session.SendCancel(1, {4}));
  ASSERT_TRUE(AwaitTaken(session));
  runner_.Release();
  ASSERT_TRUE(session.ReadUntilEnd(1, /*choices=*/2));
  EXPECT_EQ(session.log(1).tokens.at(0), Counted(3, 0, 20));
  EXPECT_EQ(session.log(1).tokens.at(2), Counted(3, 0, 20));
  EXPECT_FALSE(session.log(1).tokens.contains(4));
  EXPECT_TRUE(EventuallyIdle());
  // The handle is closed: a late cancel is no error.
  ASSERT_TRUE(session.SendCancel(1, {0}));
  ASSERT_TRUE(AwaitTaken(session));
  EXPECT_FALSE(session.log(1).error.has_value());
}

TEST_F(WorkerServerTest, AHandleWhoseChoicesAreAllCancelledIsClosed) {
  Start();
  runner_.Hold();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  v1::Submit submit = Submit(1, /*max_tokens=*/400);
  submit.add_choices()->set_index(1);
  ASSERT_TRUE(session.Send(submit));
  runner_.AwaitHeldStep();
  ASSERT_TRUE(session.SendCancel(1, {0}));
  ASSERT_TRUE(session.SendCancel(1, {1}));
  ASSERT_TRUE(AwaitTaken(session));
  runner_.Release();
  EXPECT_TRUE(EventuallyIdle());
  EXPECT_TRUE(session.log(1).tokens.empty());
  EXPECT_TRUE(session.log(1).finishes.empty());
  EXPECT_FALSE(session.log(1).error.has_value());
  // Nothing is open: a drain has nothing to cut off.
  std::thread reader([&] { session.End().IgnoreError(); });
  EXPECT_OK(server_->Drain(absl::Seconds(10)));
  reader.join();
}

TEST_F(WorkerServerTest, TwoSessionsMayUseTheSameHandles) {
  Start();
  TestSession first(*stub_);
  TestSession second(*stub_);
  ASSERT_TRUE(first.Open());
  ASSERT_TRUE(second.Open());
  ASSERT_TRUE(first.Send(Submit(1, /*max_tokens=*/30)));
  ASSERT_TRUE(second.Send(MakeSubmit(1, {1, 2, 3, 4, 5}, kEpoch, 20)));
  ASSERT_TRUE(second.ReadUntilEnd(1));
  ASSERT_TRUE(first.ReadUntilEnd(1));
  EXPECT_EQ(first.log(1).tokens.at(0), Counted(3, 0, 30));
  EXPECT_EQ(second.log(1).tokens.at(0), Counted(5, 0, 20));
}

TEST_F(WorkerServerTest, ADroppedSessionsGroupsAreCancelled) {
  Start();
  runner_.Hold();
  {
    TestSession session(*stub_);
    ASSERT_TRUE(session.Open());
    for (uint64_t handle = 1; handle <= 20; ++handle) {
      ASSERT_TRUE(session.Send(Submit(handle, /*max_tokens=*/400)));
    }
    runner_.AwaitHeldStep();
    session.Cancel();
  }
  runner_.Release();
  EXPECT_TRUE(EventuallyIdle());
}

TEST_F(WorkerServerTest, AClosedSessionsGroupsAreCancelled) {
  Start();
  runner_.Hold();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  ASSERT_TRUE(session.Send(Submit(1, /*max_tokens=*/400)));
  runner_.AwaitHeldStep();
  session.CloseWrites();
  EXPECT_OK(session.End());
  runner_.Release();
  EXPECT_TRUE(EventuallyIdle());
}

TEST_F(WorkerServerTest, ASessionThatDoesNotReadEnds) {
  WorkerServerOptions options = Options();
  options.session_backlog_bytes = 4096;
  Start(std::move(options));
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  // More than gRPC buffers by itself; nobody reads.
  uint64_t handle = 0;
  for (int i = 0; i < 8; ++i) {
    v1::Submit submit = Submit(++handle, /*max_tokens=*/500);
    submit.mutable_sampling()->set_logprob_count(20);
    if (!session.Send(submit)) break;  // ended already
  }
  EXPECT_TRUE(EventuallyLoad([&](const v1::Load&) {
    return registry_.Serialize().find("SLOW_READER") != std::string::npos;
  }));
  EXPECT_TRUE(EventuallyIdle());
  EXPECT_FALSE(session.End().ok());
}

TEST_F(WorkerServerTest, AQueueWithAWallRefusesWithARetryTime) {
  WorkerServerOptions options = Options();
  options.engine.max_waiting = 2;
  options.engine.max_running = 1;
  Start(std::move(options));
  runner_.Hold();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  ASSERT_TRUE(session.Send(Submit(1)));
  runner_.AwaitHeldStep();
  for (uint64_t handle = 2; handle <= 10; ++handle) {
    ASSERT_TRUE(session.Send(Submit(handle)));
  }
  ASSERT_TRUE(session.ReadUntilEnd(10));
  EXPECT_THAT(*session.log(10).error, HasReason(Reason::kQueueFull));
  EXPECT_TRUE(IsRetryable(*session.log(10).error));
}

TEST_F(WorkerServerTest, DrainLetsRunningStreamsFinishAndRefusesNewOnes) {
  Start();
  runner_.Hold();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  ASSERT_TRUE(session.Send(Submit(1, /*max_tokens=*/50)));
  runner_.AwaitHeldStep();
  absl::Status drained;
  std::thread drain([&] { drained = server_->Drain(absl::Seconds(10)); });
  ASSERT_TRUE(session.ReadUntil([&] { return session.drained(); }));
  ASSERT_TRUE(session.Send(Submit(2)));
  ASSERT_TRUE(session.ReadUntilEnd(2));
  EXPECT_THAT(*session.log(2).error, HasReason(Reason::kDraining));
  runner_.Release();
  ASSERT_TRUE(session.ReadUntilEnd(1));
  EXPECT_EQ(session.log(1).tokens.at(0), Counted(3, 0, 50));
  EXPECT_OK(session.End());
  drain.join();
  EXPECT_OK(drained);
}

TEST_F(WorkerServerTest, AfterTheGraceStreamsAreCutOffWithARetryableError) {
  Start();
  runner_.Hold();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  ASSERT_TRUE(session.Send(Submit(1, /*max_tokens=*/50)));
  runner_.AwaitHeldStep();
  absl::Status drained;
  std::thread drain([&] { drained = server_->Drain(absl::Milliseconds(50)); });
  const absl::Status status = session.End();
  EXPECT_THAT(status, HasReason(Reason::kDraining));
  EXPECT_TRUE(IsRetryable(status));
  runner_.Release();
  drain.join();
  EXPECT_THAT(drained, HasReason(Reason::kDraining, HasSubstr("1 groups")));
}

TEST_F(WorkerServerTest, ALostRunnerFailsItsStreamsAndIsTold) {
  Start();
  runner_.Hold();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  ASSERT_TRUE(session.Send(Submit(1, /*max_tokens=*/50)));
  runner_.AwaitHeldStep();
  runner_.Break();
  ASSERT_TRUE(session.ReadUntilEnd(1));
  EXPECT_THAT(*session.log(1).error, HasReason(Reason::kWorkerLost));
  EXPECT_TRUE(lost_.WaitForNotificationWithTimeout(absl::Seconds(10)));
  std::thread reader([&] { session.End().IgnoreError(); });
  EXPECT_THAT(server_->Drain(absl::Seconds(5)), HasReason(Reason::kWorkerLost));
  reader.join();
}

TEST_F(WorkerServerTest, InfoTellsModelEpochAndMemory) {
  Start();
  const v1::GetWorkerInfoResponse info = Info();
  EXPECT_EQ(info.epoch(), kEpoch);
  EXPECT_EQ(info.model().name(), "test-model");
  EXPECT_EQ(info.memory().kv_bytes(), 1234);
  EXPECT_EQ(info.worker_id(), "127.0.0.1:" + std::to_string(server_->port()));
  EXPECT_EQ(info.load().block_count(), kBlocks);
  EXPECT_FALSE(info.draining());
}

TEST_F(WorkerServerTest, ReservedServicesRefuseByName) {
  Start();
  const auto channel =
      grpc::CreateChannel("127.0.0.1:" + std::to_string(server_->port()),
                          grpc::InsecureChannelCredentials());
  grpc::ClientContext fetch_context;
  v1::FetchResponse block;
  auto fetch = v1::KvService::NewStub(channel)->Fetch(&fetch_context,
                                                      v1::FetchRequest());
  EXPECT_FALSE(fetch->Read(&block));
  EXPECT_THAT(
      FromGrpcStatus(fetch->Finish()),
      HasReason(Reason::kUnsupportedFeature, HasSubstr("KvService.Fetch")));
  grpc::ClientContext run_context;
  v1::StageResponse answer;
  auto run = v1::StageService::NewStub(channel)->Run(&run_context);
  EXPECT_FALSE(run->Read(&answer));
  EXPECT_THAT(
      FromGrpcStatus(run->Finish()),
      HasReason(Reason::kUnsupportedFeature, HasSubstr("StageService.Run")));
}

TEST_F(WorkerServerTest, MetricsCountWhatHappened) {
  Start();
  TestSession session(*stub_);
  ASSERT_TRUE(session.Open());
  for (uint64_t handle = 1; handle <= 3; ++handle) {
    ASSERT_TRUE(session.Send(Submit(handle, /*max_tokens=*/10)));
    ASSERT_TRUE(session.ReadUntilEnd(handle));
  }
  // Sessions come first, then what is counted; this is the last of it.
  ASSERT_TRUE(EventuallyServes(
      R"(vllm:generation_tokens_total{engine="0",model_name="test-model"} 30)"));
  const auto has = [&](const std::string& line) {
    EXPECT_THAT(registry_.Serialize(), HasSubstr(line + "\n"));
  };
  has("caravan_worker_generated_tokens_total 30");
  has("caravan_worker_submits_total 3");
  has("caravan_worker_prompt_tokens_total 9");
  has(R"(caravan_worker_requests_total{outcome="length"} 3)");
  has("caravan_worker_first_token_seconds_count 3");
  has("caravan_worker_next_token_seconds_count 27");
  has(R"(caravan_worker_planned_bytes{part="kv"} 1234)");
}

}  // namespace
}  // namespace caravan::worker
