#include "common/grpc/server.h"

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "caravan/v1/router.grpc.pb.h"
#include "common/grpc/channel.h"
#include "common/status/grpc_status.h"
#include "common/strings.h"
#include "tests/common/grpc/test_certificate.h"
#include "tests/support/status_matchers.h"

namespace caravan {
namespace {

using ::testing::HasSubstr;

// Holds a call until the client or the server gives it up, or Release().
class HoldReactor : public grpc::ServerUnaryReactor {
 public:
  void OnCancel() override { End(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }
  void Release() { End(grpc::Status::OK); }

 private:
  void End(const grpc::Status& status) {
    if (!ended_.exchange(true)) Finish(status);
  }
  std::atomic<bool> ended_ = false;
};

// Place hangs for the request "hold"; everything else is answered at once.
class HoldingService final : public v1::RouterService::CallbackService {
 public:
  grpc::ServerUnaryReactor* Place(grpc::CallbackServerContext* context,
                                  const v1::PlaceRequest* request,
                                  v1::PlaceResponse* response) override {
    if (request->request_id() != "hold") {
      auto* const reactor = context->DefaultReactor();
      reactor->Finish(ToGrpcStatus(MakeError(Reason::kNoReplica, "none")));
      return reactor;
    }
    held = new HoldReactor();
    holding.Notify();
    return held;
  }
  absl::Notification holding;
  HoldReactor* held = nullptr;
};

std::string AddressOf(const GrpcServer& server) {
  return StrCat("127.0.0.1:", server.port());
}

std::shared_ptr<grpc::Channel> ChannelTo(const GrpcServer& server,
                                         const TlsOptions& tls = {}) {
  return MakeChannel(AddressOf(server), {.tls = tls}).value();
}

absl::Status Place(const std::shared_ptr<grpc::Channel>& channel,
                   const std::string& request_id = "") {
  v1::PlaceRequest request;
  request.set_request_id(request_id);
  v1::PlaceResponse response;
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(20)));
  return FromGrpcStatus(
      v1::RouterService::NewStub(channel)->Place(&context, request, &response));
}

// The serving status of the whole server: 1 serving, 2 not; -1 no answer.
// The health protos are not installed; the messages are small enough.
int HealthOf(const GrpcServer& server) {
  grpc::GenericStub stub(ChannelTo(server));
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const grpc::Slice empty("", 0);
  const grpc::ByteBuffer request(&empty, 1);
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check",
                                    request, &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  grpc::Slice slice;
  if (!status.ok() || !response.TrySingleSlice(&slice).ok()) return -1;
  return slice.size() == 2 ? slice.begin()[1] : -1;
}

// Whether the reflection service lists `name` (request: list_services = "").
bool ReflectionLists(const GrpcServer& server, const std::string& name) {
  grpc::GenericStub stub(ChannelTo(server));
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto call = stub.PrepareCall(
      &context,
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  void* tag = nullptr;
  bool ok = false;
  call->StartCall(nullptr);
  queue.Next(&tag, &ok);
  const grpc::Slice request("\x3a\x00", 2);
  call->WriteLast(grpc::ByteBuffer(&request, 1), grpc::WriteOptions(), nullptr);
  queue.Next(&tag, &ok);
  grpc::ByteBuffer response;
  call->Read(&response, nullptr);
  queue.Next(&tag, &ok);
  grpc::Slice slice;
  const bool listed =
      ok && response.DumpToSingleSlice(&slice).ok() &&
      std::string(slice.begin(), slice.end()).find(name) != std::string::npos;
  grpc::Status status;
  call->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
  return listed;
}

TEST(GrpcServerTest, ServesOnAFreePortAndPassesStatusDetails) {
  HoldingService service;
  ASSERT_OK_AND_ASSIGN(const auto server, GrpcServer::Start({}, {&service}));
  EXPECT_GT(server->port(), 0);
  EXPECT_THAT(Place(ChannelTo(*server)),
              testing::HasReason(Reason::kNoReplica));
}

TEST(GrpcServerTest, HealthFollowsSetServing) {
  HoldingService service;
  ASSERT_OK_AND_ASSIGN(const auto server, GrpcServer::Start({}, {&service}));
  EXPECT_EQ(HealthOf(*server), 2);
  server->SetServing(true);
  EXPECT_EQ(HealthOf(*server), 1);
  server->SetServing(false);
  EXPECT_EQ(HealthOf(*server), 2);
}

TEST(GrpcServerTest, ReflectionListsTheServices) {
  HoldingService service;
  ASSERT_OK_AND_ASSIGN(const auto server, GrpcServer::Start({}, {&service}));
  EXPECT_TRUE(ReflectionLists(*server, "caravan.v1.RouterService"));
}

TEST(GrpcServerTest, ATakenPortIsAnErrorThatNamesIt) {
  HoldingService service;
  ASSERT_OK_AND_ASSIGN(const auto first, GrpcServer::Start({}, {&service}));
  HoldingService other;
  EXPECT_THAT(
      GrpcServer::Start({.port = first->port()}, {&other}).status(),
      testing::HasReason(Reason::kInvalidField, HasSubstr(AddressOf(*first))));
}

TEST(GrpcServerTest, ShutdownLetsRunningCallsFinish) {
  HoldingService service;
  ASSERT_OK_AND_ASSIGN(const auto server, GrpcServer::Start({}, {&service}));
  absl::Status ended = absl::UnknownError("not ended");
  std::jthread caller([&] { ended = Place(ChannelTo(*server), "hold"); });
  service.holding.WaitForNotification();
  std::jthread stopper([&] { server->Shutdown(absl::Seconds(20)); });
  service.held->Release();
  caller.join();
  EXPECT_OK(ended);
}

TEST(GrpcServerTest, ShutdownCancelsWhatIsLeftAfterItsGrace) {
  HoldingService service;
  ASSERT_OK_AND_ASSIGN(const auto server, GrpcServer::Start({}, {&service}));
  absl::Status ended;
  std::jthread caller([&] { ended = Place(ChannelTo(*server), "hold"); });
  service.holding.WaitForNotification();
  server->Shutdown(absl::Milliseconds(20));
  caller.join();
  EXPECT_FALSE(ended.ok());
  EXPECT_EQ(Place(ChannelTo(*server)).code(), absl::StatusCode::kUnavailable);
}

TEST(GrpcServerTest, MutualTlsAsksClientsForACertificate) {
  ASSERT_OK_AND_ASSIGN(const TlsOptions tls, testing::MakeTestCertificate());
  HoldingService service;
  ASSERT_OK_AND_ASSIGN(const auto server,
                       GrpcServer::Start({.tls = tls}, {&service}));
  EXPECT_THAT(Place(ChannelTo(*server, tls)),
              testing::HasReason(Reason::kNoReplica));
  const TlsOptions without = {.ca_file = tls.ca_file};
  EXPECT_EQ(Place(ChannelTo(*server, without)).code(),
            absl::StatusCode::kUnavailable);
}

TEST(GrpcServerTest, TlsFilesAreCheckedByName) {
  EXPECT_THAT(
      GrpcServer::Start({.tls = {.certificate_file = "c"}}, {}).status(),
      testing::HasReason(Reason::kInvalidField, HasSubstr("--tls-key")));
  EXPECT_THAT(
      GrpcServer::Start({.tls = {.certificate_file = "c", .key_file = "k"}}, {})
          .status(),
      testing::HasReason(Reason::kInvalidField,
                         HasSubstr("--tls-cert must be a readable PEM file")));
  EXPECT_THAT(MakeChannel("127.0.0.1:1", {.tls = {.ca_file = "nowhere"}}),
              testing::HasReason(Reason::kInvalidField, HasSubstr("nowhere")));
}

TEST(AnnounceReadyTest, PrintsOneLine) {
  ::testing::internal::CaptureStdout();
  AnnounceReady({{"grpc", "127.0.0.1:8090"}, {"metrics", "127.0.0.1:9481"}});
  EXPECT_EQ(::testing::internal::GetCapturedStdout(),
            "READY grpc=127.0.0.1:8090 metrics=127.0.0.1:9481\n");
}

TEST(TerminationSignalDeathTest, SignalsWaitUntilTheyAreAskedFor) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        BlockTerminationSignals();
        raise(SIGTERM);
        std::exit(WaitForTerminationSignal());
      },
      ::testing::ExitedWithCode(SIGTERM), "");
}

}  // namespace
}  // namespace caravan
