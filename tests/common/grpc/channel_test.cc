#include "common/grpc/channel.h"

#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <memory>

#include "absl/synchronization/notification.h"
#include "caravan/v1/router.grpc.pb.h"

namespace caravan {
namespace {

struct Farewell {
  ~Farewell() { gone->Notify(); }
  absl::Notification* gone;
};

// The members go in the opposite order: the channel of the context before the
// farewell.
struct Call {
  Farewell farewell;
  grpc::ClientContext context;
  v1::PlaceRequest request;
  v1::PlaceResponse response;
};

// Nobody listens there, so the call ends at once. Its context, which holds the
// channel, is the last to know it, and goes with the callback.
grpc::StatusCode CallThatTakesTheChannelWithIt() {
  absl::Notification dropped;
  absl::Notification gone;
  grpc::StatusCode code = grpc::StatusCode::OK;
  {
    const auto channel = MakeChannel("127.0.0.1:1", {}).value();
    const auto stub = v1::RouterService::NewStub(channel);
    auto call = std::make_shared<Call>();
    call->farewell.gone = &gone;
    stub->async()->Place(&call->context, &call->request, &call->response,
                         [call, &dropped, &code](const grpc::Status& status) {
                           code = status.error_code();
                           dropped.WaitForNotification();
                         });
  }
  dropped.Notify();
  gone.WaitForNotification();
  return code;
}

TEST(ChannelTest, TheLastChannelMayGoOnAThreadOfGrpc) {
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(CallThatTakesTheChannelWithIt(), grpc::StatusCode::UNAVAILABLE);
  }
}

}  // namespace
}  // namespace caravan
