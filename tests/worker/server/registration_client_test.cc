#include "worker/server/registration_client.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "caravan/v1/router.grpc.pb.h"
#include "common/build_info.h"
#include "common/status/grpc_status.h"
#include "tests/support/status_matchers.h"
#include "worker/server/address_resolver.h"

namespace caravan::worker {
namespace {

// A router that notes what workers say.
class FakeRouter final : public v1::RouterService::Service {
 public:
  FakeRouter() { Start(0); }
  ~FakeRouter() override { Stop(); }

  void Start(int port) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port),
                             grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  void Stop() {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  int port() const { return port_; }

  grpc::Status Register(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::RegisterResponse, v1::RegisterRequest>*
          stream) override {
    v1::RegisterRequest request;
    if (!stream->Read(&request)) return grpc::Status::OK;
    Note(request);
    Answer(stream);
    bool snapshot_asked = false;
    while (stream->Read(&request)) {
      Note(request);
      if (request.has_kv_events() && ask_snapshot && !snapshot_asked) {
        snapshot_asked = true;
        v1::RegisterResponse response;
        response.mutable_snapshot_wanted();
        stream->Write(response);
      }
    }
    return grpc::Status::OK;
  }

  // Waits until `condition` holds of what was said.
  bool Await(
      std::function<bool(const std::vector<v1::RegisterRequest>&)> condition) {
    absl::MutexLock lock(&mutex_);
    const auto met = [&] { return condition(said_); };
    return mutex_.AwaitWithTimeout(absl::Condition(&met), absl::Seconds(10));
  }
  std::vector<v1::RegisterRequest> said() {
    absl::MutexLock lock(&mutex_);
    return said_;
  }

  bool ask_snapshot = false;
  bool refuse = false;
  int revision = kGreatestProtocolRevision;

 private:
  void Answer(grpc::ServerReaderWriter<v1::RegisterResponse,
                                       v1::RegisterRequest>* stream) {
    v1::RegisterResponse hello;
    hello.mutable_hello()->set_least_revision(revision);
    hello.mutable_hello()->set_greatest_revision(revision);
    stream->Write(hello);
    v1::RegisterResponse response;
    if (refuse) {
      *response.mutable_refused() =
          ToProtoError(MakeError(Reason::kIdentityMismatch, "no"));
    } else {
      response.mutable_registered()->mutable_heartbeat_interval()->set_nanos(
          20'000'000);
    }
    stream->Write(response);
  }
  void Note(const v1::RegisterRequest& request) {
    absl::MutexLock lock(&mutex_);
    said_.push_back(request);
  }

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  absl::Mutex mutex_;
  std::vector<v1::RegisterRequest> said_ ABSL_GUARDED_BY(mutex_);
};

template <typename Has>
int64_t Count(const std::vector<v1::RegisterRequest>& said, const Has& has) {
  return std::count_if(said.begin(), said.end(), has);
}
bool IsHeartbeat(const v1::RegisterRequest& r) { return r.has_heartbeat(); }
bool IsDrainingBeat(const v1::RegisterRequest& r) {
  return r.has_heartbeat() && r.heartbeat().draining();
}
bool IsRegistration(const v1::RegisterRequest& r) {
  return r.has_registration();
}
bool IsEvents(const v1::RegisterRequest& r) { return r.has_kv_events(); }
bool IsSnapshot(const v1::RegisterRequest& r) {
  return r.has_kv_events() && r.kv_events().snapshot();
}

class RegistrationClientTest : public ::testing::Test {
 protected:
  RegistrationClientTest() {
    facts_.worker_id = "w1:8100";
    facts_.address = "w1:8100";
    facts_.epoch = 42;
    facts_.model.set_name("m");
  }

  void StartClient(std::vector<std::string> routers) {
    RegistrationOptions options;
    options.routers = std::move(routers);
    options.resolve_interval = absl::Milliseconds(50);
    options.event_interval = absl::Milliseconds(1);
    options.resolve = ResolveAddresses;
    StartClient(std::move(options));
  }
  void StartClient(RegistrationOptions options) {
    ASSERT_OK_AND_ASSIGN(client_,
                         RegistrationClient::Start(
                             std::move(options),
                             {.facts = &facts_, .load = &load_, .feed = &feed_},
                             &SystemClock::Get()));
  }
  void Store(uint8_t value) {
    KvChanges changes;
    changes.stored.emplace_back().bytes[0] = value;
    if (feed_.Apply(changes)) client_->NotifyEvents();
  }

  WorkerFacts facts_;
  LoadMeter load_{/*block_count=*/7, [] { return EngineLoad(); }};
  KvEventFeed feed_;
  std::unique_ptr<RegistrationClient> client_;
};

TEST_F(RegistrationClientTest, SaysHelloRegistersAndBeats) {
  FakeRouter router;
  StartClient({router.address()});
  ASSERT_TRUE(router.Await(
      [](const auto& said) { return Count(said, IsHeartbeat) >= 5; }));
  const auto said = router.said();
  EXPECT_TRUE(said[0].has_hello());
  EXPECT_EQ(said[0].hello().epoch(), 42u);
  ASSERT_TRUE(said[1].has_registration());
  EXPECT_EQ(said[1].registration().worker_id(), "w1:8100");
  EXPECT_EQ(said[1].registration().model().name(), "m");
  EXPECT_EQ(said[1].registration().roles(0), v1::TARGET_ROLE_WHOLE);
  EXPECT_EQ(said[2].heartbeat().load().block_count(), 7);
  EXPECT_EQ(client_->registered_count(), 1);
}

TEST_F(RegistrationClientTest, EventsFollowASnapshotWithoutGaps) {
  FakeRouter router;
  StartClient({router.address()});
  ASSERT_TRUE(router.Await(
      [](const auto& said) { return Count(said, IsSnapshot) == 1; }));
  for (uint8_t i = 1; i <= 20; ++i) {
    Store(i);
    ASSERT_TRUE(router.Await(
        [&](const auto& said) { return Count(said, IsEvents) >= 1 + i; }));
  }
  int64_t last = 0;
  for (const v1::RegisterRequest& request : router.said()) {
    if (!request.has_kv_events()) continue;
    const v1::KvEvents& events = request.kv_events();
    if (events.snapshot()) {
      EXPECT_EQ(events.sequence_number(), 0);
    } else {
      EXPECT_EQ(events.sequence_number(), ++last);
    }
  }
  EXPECT_EQ(last, 20);
}

TEST_F(RegistrationClientTest, ASnapshotComesWhenItIsWanted) {
  FakeRouter router;
  router.ask_snapshot = true;
  StartClient({router.address()});
  Store(1);
  ASSERT_TRUE(router.Await(
      [](const auto& said) { return Count(said, IsSnapshot) >= 2; }));
}

TEST_F(RegistrationClientTest, EveryRouterHearsOfTheWorker) {
  FakeRouter first;
  FakeRouter second;
  StartClient({first.address(), second.address()});
  for (FakeRouter* const router : {&first, &second}) {
    ASSERT_TRUE(router->Await(
        [](const auto& said) { return Count(said, IsHeartbeat) >= 2; }));
  }
}

TEST_F(RegistrationClientTest, ANameStandsForEveryAddressBehindIt) {
  FakeRouter first;
  FakeRouter second;
  RegistrationOptions options;
  options.routers = {"routers.test:1"};
  options.resolve =
      [&](const std::string&) -> absl::StatusOr<std::vector<std::string>> {
    return {{first.address(), second.address()}};
  };
  StartClient(std::move(options));
  for (FakeRouter* const router : {&first, &second}) {
    ASSERT_TRUE(router->Await(
        [](const auto& said) { return Count(said, IsRegistration) == 1; }));
  }
}

TEST_F(RegistrationClientTest, ARouterThatComesBackIsToldAgain) {
  FakeRouter router;
  StartClient({router.address()});
  ASSERT_TRUE(router.Await(
      [](const auto& said) { return Count(said, IsSnapshot) == 1; }));
  const int port = router.port();
  router.Stop();
  router.Start(port);
  ASSERT_TRUE(router.Await([](const auto& said) {
    return Count(said, IsRegistration) >= 2 && Count(said, IsSnapshot) >= 2;
  }));
}

TEST_F(RegistrationClientTest, ARouterThatStartsLaterIsFound) {
  auto router = std::make_unique<FakeRouter>();
  const int port = router->port();
  router->Stop();
  StartClient({router->address()});
  router->Start(port);
  ASSERT_TRUE(router->Await(
      [](const auto& said) { return Count(said, IsHeartbeat) >= 1; }));
}

TEST_F(RegistrationClientTest, DrainIsToldAtOnce) {
  FakeRouter router;
  StartClient({router.address()});
  ASSERT_TRUE(router.Await(
      [](const auto& said) { return Count(said, IsHeartbeat) >= 1; }));
  client_->StartDrain();
  ASSERT_TRUE(router.Await(
      [](const auto& said) { return Count(said, IsDrainingBeat) >= 1; }));
}

TEST_F(RegistrationClientTest, ARefusedWorkerTriesAgainAndDoesNotCount) {
  FakeRouter router;
  router.refuse = true;
  StartClient({router.address()});
  ASSERT_TRUE(router.Await(
      [](const auto& said) { return Count(said, IsRegistration) >= 2; }));
  EXPECT_EQ(client_->registered_count(), 0);
}

TEST_F(RegistrationClientTest, ARouterOfAnotherProtocolDoesNotCount) {
  FakeRouter router;
  router.revision = kGreatestProtocolRevision + 1;
  StartClient({router.address()});
  ASSERT_TRUE(router.Await(
      [](const auto& said) { return Count(said, IsRegistration) >= 2; }));
  EXPECT_EQ(client_->registered_count(), 0);
}

TEST(AddressResolverTest, LiteralsResolveToThemselves) {
  ASSERT_OK_AND_ASSIGN(const auto v4, ResolveAddresses("127.0.0.1:80"));
  EXPECT_THAT(v4, ::testing::ElementsAre("127.0.0.1:80"));
  ASSERT_OK_AND_ASSIGN(const auto v6, ResolveAddresses("[::1]:80"));
  EXPECT_THAT(v6, ::testing::ElementsAre("[::1]:80"));
}

TEST(AddressResolverTest, WhatIsNoAddressIsRefused) {
  for (const char* const address :
       {"", "host", "host:", ":1", "host:0", "host:65536", "host:x", "::1:80",
        "[]:80"}) {
    EXPECT_THAT(SplitHostPort(address),
                ::caravan::testing::HasReason(Reason::kInvalidField))
        << address;
  }
}

}  // namespace
}  // namespace caravan::worker
