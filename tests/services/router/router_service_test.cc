#include "services/router/router_service.h"

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/grpc/channel.h"
#include "common/grpc/server.h"
#include "common/status/grpc_status.h"
#include "common/strings.h"
#include "services/router/policy_factory.h"
#include "tests/services/router/fleet_fixture.h"
#include "tests/support/manual_clock.h"
#include "tests/support/status_matchers.h"

namespace caravan::router {
namespace {

using ::testing::AllOf;
using testing::HasReason;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(20);

v1::Registration TestRegistration(const std::string& worker_id) {
  const ReplicaInfo info = TestReplica(worker_id);
  v1::Registration registration;
  registration.set_worker_id(info.worker_id);
  registration.set_address(info.address);
  registration.set_epoch(info.epoch);
  registration.add_roles(v1::TARGET_ROLE_WHOLE);
  registration.add_features(v1::FEATURE_RESUME);
  v1::ModelInfo& model = *registration.mutable_model();
  model.set_name(info.model);
  model.mutable_identity()->set_weights_id(info.identity.weights_id);
  model.mutable_identity()->set_numerics_class(info.identity.numerics_class);
  model.mutable_identity()->set_fingerprint(info.identity.fingerprint);
  model.mutable_identity()->set_tokenizer_id(info.identity.tokenizer_id);
  model.set_context_length(info.context_length);
  model.set_vocabulary_size(info.vocabulary_size);
  model.set_block_size(info.block_size);
  model.set_block_count(info.block_count);
  model.set_max_running_count(info.max_running_count);
  return registration;
}

// A worker's side of a Register stream.
class TestWorker {
 public:
  explicit TestWorker(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(v1::RouterService::NewStub(channel)) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
    stream_ = stub_->Register(&context_);
  }

  void Send(const v1::RegisterRequest& request) { stream_->Write(request); }
  void SendHello(int least = 1, int greatest = 1) {
    v1::RegisterRequest request;
    request.mutable_hello()->set_least_revision(least);
    request.mutable_hello()->set_greatest_revision(greatest);
    Send(request);
  }
  void SendRegistration(const v1::Registration& registration) {
    v1::RegisterRequest request;
    *request.mutable_registration() = registration;
    Send(request);
  }
  void SendHeartbeat(int running, bool draining = false) {
    v1::RegisterRequest request;
    request.mutable_heartbeat()->mutable_load()->set_running_sequence_count(
        running);
    request.mutable_heartbeat()->set_draining(draining);
    Send(request);
  }
  void SendStored(int64_t number, const std::vector<kv::BlockHash>& hashes,
                  bool snapshot = false) {
    v1::RegisterRequest request;
    request.mutable_kv_events()->set_sequence_number(number);
    request.mutable_kv_events()->set_snapshot(snapshot);
    for (const kv::BlockHash& hash : hashes) {
      request.mutable_kv_events()->add_stored(hash.ToBytes());
    }
    Send(request);
  }

  // The next answer; without a kind when the stream has ended.
  v1::RegisterResponse Read() {
    v1::RegisterResponse response;
    if (!stream_->Read(&response)) response.Clear();
    return response;
  }
  absl::Status End() { return FromGrpcStatus(stream_->Finish()); }
  absl::Status CloseAndEnd() {
    stream_->WritesDone();
    while (Read().kind_case() != v1::RegisterResponse::KIND_NOT_SET) {
    }
    return End();
  }
  void Kill() {
    context_.TryCancel();
    EXPECT_EQ(End().code(), absl::StatusCode::kCancelled);
  }

  // Hello, registration, and both answers.
  void Join(const std::string& worker_id) {
    SendHello();
    SendRegistration(TestRegistration(worker_id));
    EXPECT_TRUE(Read().has_hello());
    EXPECT_TRUE(Read().has_registered());
  }

 private:
  std::unique_ptr<v1::RouterService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<
      grpc::ClientReaderWriter<v1::RegisterRequest, v1::RegisterResponse>>
      stream_;
};

class RouterServiceTest : public ::testing::Test {
 protected:
  RouterServiceTest()
      : service_({}, &clock_, &registry_, MakePolicy("cost", 1).value()),
        server_(GrpcServer::Start({}, {&service_}).value()),
        channel_(
            MakeChannel(StrCat("127.0.0.1:", server_->port()), {}).value()),
        stub_(v1::RouterService::NewStub(channel_)) {}

  absl::StatusOr<v1::PlaceResponse> Place(const v1::PlaceRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
    v1::PlaceResponse response;
    CARAVAN_RETURN_IF_ERROR(
        FromGrpcStatus(stub_->Place(&context, request, &response)));
    return response;
  }

  v1::ListWorkersResponse List(const std::string& model = "") {
    grpc::ClientContext context;
    v1::ListWorkersRequest request;
    request.set_model(model);
    v1::ListWorkersResponse response;
    EXPECT_OK(FromGrpcStatus(stub_->ListWorkers(&context, request, &response)));
    return response;
  }

  // Asks until the fleet is as wanted.
  bool Eventually(
      const std::function<bool(const v1::ListWorkersResponse&)>& wanted) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (absl::Now() < deadline) {
      if (wanted(List())) return true;
      std::this_thread::yield();
    }
    return false;
  }
  bool EventuallyState(v1::WorkerState state) {
    return Eventually([state](const v1::ListWorkersResponse& fleet) {
      return fleet.workers_size() == 1 && fleet.workers(0).state() == state;
    });
  }

  static v1::PlaceRequest DemoRequest() {
    v1::PlaceRequest request;
    request.set_model("demo");
    request.set_prompt_token_count(100);
    return request;
  }

  testing::ManualClock clock_;
  MetricsRegistry registry_;
  RouterService service_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::RouterService::Stub> stub_;
};

TEST_F(RouterServiceTest, ARegisteredReplicaGetsPlacementsWithItsModel) {
  TestWorker worker(channel_);
  worker.Join("w1");
  ASSERT_OK_AND_ASSIGN(const v1::PlaceResponse response, Place(DemoRequest()));
  ASSERT_EQ(response.targets_size(), 1);
  const v1::Target& target = response.targets(0);
  EXPECT_EQ(target.worker_id(), "w1");
  EXPECT_EQ(target.address(), "w1:8100");
  EXPECT_EQ(target.epoch(), 1u);
  EXPECT_EQ(target.role(), v1::TARGET_ROLE_WHOLE);
  EXPECT_EQ(target.model().SerializeAsString(),
            TestRegistration("w1").model().SerializeAsString());
  EXPECT_OK(worker.CloseAndEnd());
}

TEST_F(RouterServiceTest, HelloAndHeartbeatIntervalAreAnswered) {
  TestWorker worker(channel_);
  worker.SendHello();
  const v1::RegisterResponse hello = worker.Read();
  EXPECT_EQ(hello.hello().least_revision(), 1);
  EXPECT_FALSE(hello.hello().build().empty());
  worker.SendRegistration(TestRegistration("w1"));
  EXPECT_EQ(worker.Read().registered().heartbeat_interval().nanos(),
            500'000'000);
  EXPECT_OK(worker.CloseAndEnd());
}

TEST_F(RouterServiceTest, HeartbeatsShowInTheList) {
  TestWorker worker(channel_);
  worker.Join("w1");
  worker.SendHeartbeat(/*running=*/5);
  EXPECT_TRUE(Eventually([](const v1::ListWorkersResponse& fleet) {
    return fleet.workers(0).load().running_sequence_count() == 5 &&
           fleet.workers(0).state() == v1::WORKER_STATE_READY;
  }));
  EXPECT_EQ(List("other").workers_size(), 0);
  EXPECT_EQ(List("demo").workers_size(), 1);
  EXPECT_OK(worker.CloseAndEnd());
}

TEST_F(RouterServiceTest, KvEventsSteerPlacements) {
  TestWorker first(channel_);
  first.Join("w1");
  TestWorker second(channel_);
  second.Join("w2");
  const std::vector<kv::BlockHash> chain = TestChain(6);
  second.SendStored(1, chain);
  ASSERT_TRUE(Eventually([](const v1::ListWorkersResponse& fleet) {
    return fleet.workers(1).indexed_block_count() == 6;
  }));
  v1::PlaceRequest request = DemoRequest();
  v1::BlockHashChain* const hashes = request.add_chains();
  for (const kv::BlockHash& hash : chain) hashes->add_hashes(hash.ToBytes());
  ASSERT_OK_AND_ASSIGN(const v1::PlaceResponse response, Place(request));
  ASSERT_EQ(response.targets_size(), 2);
  EXPECT_EQ(response.targets(0).worker_id(), "w2");
  EXPECT_EQ(response.targets(0).matched_block_count(), 6);
  EXPECT_THAT(registry_.Serialize(),
              AllOf(HasSubstr("caravan_router_matched_tokens_total 96"),
                    HasSubstr("caravan_router_prompt_tokens_total 100"),
                    HasSubstr("caravan_router_placements_total{outcome=\"ok\","
                              "policy=\"cost\"} 1")));
  EXPECT_OK(first.CloseAndEnd());
  EXPECT_OK(second.CloseAndEnd());
}

TEST_F(RouterServiceTest, AGapIsAnsweredWithSnapshotWanted) {
  TestWorker worker(channel_);
  worker.Join("w1");
  worker.SendStored(1, TestChain(1));
  worker.SendStored(5, TestChain(2));
  EXPECT_EQ(worker.Read().snapshot_wanted().last_sequence_number(), 1);
  worker.SendStored(5, TestChain(4), /*snapshot=*/true);
  EXPECT_TRUE(Eventually([](const v1::ListWorkersResponse& fleet) {
    return fleet.workers(0).indexed_block_count() == 4;
  }));
  EXPECT_OK(worker.CloseAndEnd());
}

TEST_F(RouterServiceTest,
       AKilledWorkerGetsNothingAtOnceAndIsLostAfterTwoSeconds) {
  TestWorker worker(channel_);
  worker.Join("w1");
  worker.Kill();
  ASSERT_TRUE(EventuallyState(v1::WORKER_STATE_SUSPECT));
  EXPECT_THAT(Place(DemoRequest()), HasReason(Reason::kNoReplica));
  clock_.Advance(absl::Milliseconds(2250));
  service_.Tick();
  EXPECT_EQ(List().workers_size(), 0);
  EXPECT_THAT(registry_.Serialize(),
              HasSubstr("caravan_router_lost_workers_total 1"));
}

TEST_F(RouterServiceTest, ADrainingWorkerGetsNothingAndIsNotLost) {
  TestWorker worker(channel_);
  worker.Join("w1");
  worker.SendHeartbeat(0, /*draining=*/true);
  ASSERT_TRUE(EventuallyState(v1::WORKER_STATE_DRAINING));
  EXPECT_THAT(Place(DemoRequest()), HasReason(Reason::kNoReplica));
  EXPECT_OK(worker.CloseAndEnd());
  EXPECT_TRUE(Eventually([](const v1::ListWorkersResponse& fleet) {
    return fleet.workers_size() == 0;
  }));
  EXPECT_THAT(registry_.Serialize(),
              HasSubstr("caravan_router_lost_workers_total 0"));
}

TEST_F(RouterServiceTest, AWorkerThatWasRemovedIsToldToRegisterAgain) {
  TestWorker worker(channel_);
  worker.Join("w1");
  clock_.Advance(absl::Seconds(3));
  service_.Tick();
  worker.SendHeartbeat(1);
  EXPECT_EQ(worker.Read().kind_case(), v1::RegisterResponse::KIND_NOT_SET);
  EXPECT_THAT(worker.End(), HasReason(Reason::kNoReplica));
}

TEST_F(RouterServiceTest, AnotherProtocolIsRefused) {
  TestWorker worker(channel_);
  worker.SendHello(/*least=*/7, /*greatest=*/9);
  EXPECT_TRUE(worker.Read().has_hello());
  EXPECT_EQ(worker.Read().refused().reason(),
            v1::ERROR_REASON_PROTOCOL_MISMATCH);
  EXPECT_THAT(worker.End(),
              HasReason(Reason::kProtocolMismatch, HasSubstr("[7, 9]")));
}

TEST_F(RouterServiceTest, AnIncompleteRegistrationIsRefusedByField) {
  TestWorker worker(channel_);
  v1::Registration registration = TestRegistration("w1");
  registration.mutable_model()->mutable_identity()->clear_fingerprint();
  worker.SendHello();
  worker.SendRegistration(registration);
  EXPECT_TRUE(worker.Read().has_hello());
  EXPECT_THAT(worker.Read().refused().message(), HasSubstr("fingerprint"));
  EXPECT_THAT(worker.End(), HasReason(Reason::kInvalidField));
  EXPECT_THAT(registry_.Serialize(),
              HasSubstr("caravan_router_refused_registrations_total{reason="
                        "\"INVALID_FIELD\"} 1"));
}

TEST_F(RouterServiceTest, MessagesOutOfOrderEndTheStream) {
  TestWorker silent(channel_);
  silent.SendRegistration(TestRegistration("w1"));
  EXPECT_EQ(silent.Read().kind_case(), v1::RegisterResponse::KIND_NOT_SET);
  EXPECT_THAT(silent.End(),
              HasReason(Reason::kInvalidField, HasSubstr("hello first")));

  TestWorker hasty(channel_);
  hasty.SendHello();
  hasty.SendHeartbeat(1);
  EXPECT_TRUE(hasty.Read().has_hello());
  EXPECT_EQ(hasty.Read().kind_case(), v1::RegisterResponse::KIND_NOT_SET);
  EXPECT_THAT(hasty.End(),
              HasReason(Reason::kInvalidField, HasSubstr("registration")));
}

TEST_F(RouterServiceTest, HashesOfAnotherSizeEndTheStream) {
  TestWorker worker(channel_);
  worker.Join("w1");
  v1::RegisterRequest request;
  request.mutable_kv_events()->set_sequence_number(1);
  request.mutable_kv_events()->add_stored("short");
  worker.Send(request);
  EXPECT_EQ(worker.Read().kind_case(), v1::RegisterResponse::KIND_NOT_SET);
  EXPECT_THAT(worker.End(),
              HasReason(Reason::kInvalidField, HasSubstr("5 bytes")));
}

TEST_F(RouterServiceTest, PlacementErrorsCarryReasonAndRetryTime) {
  const auto none = Place(DemoRequest());
  EXPECT_THAT(none, HasReason(Reason::kNoReplica));
  EXPECT_EQ(RetryAfterOf(none.status()), absl::Seconds(1));
  TestWorker worker(channel_);
  worker.Join("w1");
  v1::PlaceRequest request = DemoRequest();
  request.set_model("other");
  EXPECT_THAT(Place(request),
              HasReason(Reason::kModelNotFound, HasSubstr("demo")));
  request.set_adapter("lora");
  EXPECT_THAT(Place(request), HasReason(Reason::kUnsupportedParameter));
  EXPECT_THAT(registry_.Serialize(),
              HasSubstr("{outcome=\"MODEL_NOT_FOUND\",policy=\"cost\"} 1"));
  EXPECT_OK(worker.CloseAndEnd());
}

TEST_F(RouterServiceTest, DrainEndsStreamsAndRefusesPlacements) {
  TestWorker worker(channel_);
  worker.Join("w1");
  service_.Drain();
  EXPECT_EQ(worker.Read().kind_case(), v1::RegisterResponse::KIND_NOT_SET);
  EXPECT_THAT(worker.End(), HasReason(Reason::kDraining));
  EXPECT_THAT(Place(DemoRequest()), HasReason(Reason::kDraining));
  TestWorker late(channel_);
  EXPECT_EQ(late.Read().kind_case(), v1::RegisterResponse::KIND_NOT_SET);
  EXPECT_THAT(late.End(), HasReason(Reason::kDraining));
  server_->Shutdown(absl::InfiniteDuration());  // nothing holds it up
}

TEST_F(RouterServiceTest, ManyWorkersComeAndGoWhileRequestsArePlaced) {
  TestWorker steady(channel_);
  steady.Join("steady");
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([this, t] {
        for (int i = 0; i < 10; ++i) {
          TestWorker worker(channel_);
          worker.Join(StrCat("w", t));
          worker.SendStored(1, TestChain(3), /*snapshot=*/true);
          EXPECT_OK(Place(DemoRequest()));
          if (i % 2 == 0) {
            worker.Kill();
          } else {
            EXPECT_OK(worker.CloseAndEnd());
          }
        }
      });
    }
  }
  EXPECT_OK(steady.CloseAndEnd());
  clock_.Advance(absl::Seconds(3));
  service_.Tick();
  EXPECT_EQ(List().workers_size(), 0);
  EXPECT_THAT(registry_.Serialize(),
              HasSubstr("caravan_router_indexed_blocks 0"));
}

}  // namespace
}  // namespace caravan::router
