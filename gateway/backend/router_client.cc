#include "gateway/backend/router_client.h"

#include <utility>

#include "caravan/v1/router.grpc.pb.h"
#include "common/status/status_macros.h"
#include "gateway/backend/unary_client.h"

namespace caravan::gateway {
namespace {

namespace asio = boost::asio;

// A router answers from memory; one that takes longer is as good as gone.
constexpr absl::Duration kCallTimeout = absl::Seconds(2);

}  // namespace

struct RouterClient::Stubs {
  explicit Stubs(size_t size) : rotation(size) {}
  std::vector<std::unique_ptr<v1::RouterService::Stub>> stubs;
  Rotation rotation;
};

RouterClient::RouterClient(std::unique_ptr<Stubs> stubs)
    : stubs_(std::move(stubs)) {}

RouterClient::~RouterClient() = default;

absl::StatusOr<std::unique_ptr<RouterClient>> RouterClient::Create(
    const std::vector<std::string>& addresses, const ChannelOptions& options) {
  auto stubs = std::make_unique<Stubs>(addresses.size());
  for (const std::string& address : addresses) {
    CARAVAN_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                             MakeChannel(address, options));
    stubs->stubs.push_back(v1::RouterService::NewStub(std::move(channel)));
  }
  return std::unique_ptr<RouterClient>(new RouterClient(std::move(stubs)));
}

asio::awaitable<absl::StatusOr<v1::PlaceResponse>> RouterClient::Place(
    v1::PlaceRequest request, Patience patience) {
  const auto call = [this, &request](size_t index) {
    const auto start = [stub = stubs_->stubs[index].get()](
                           auto* context, auto* in, auto* out, auto done) {
      stub->async()->Place(context, in, out, std::move(done));
    };
    return CallUnary<v1::PlaceResponse>(start, request, kCallTimeout);
  };
  co_return co_await CallAny<v1::PlaceResponse>(
      stubs_->rotation, std::move(patience), Reason::kRouterUnavailable,
      "the router", call);
}

asio::awaitable<absl::StatusOr<v1::ListWorkersResponse>>
RouterClient::ListWorkers() {
  const auto call = [this](size_t index) {
    const auto start = [stub = stubs_->stubs[index].get()](
                           auto* context, auto* in, auto* out, auto done) {
      stub->async()->ListWorkers(context, in, out, std::move(done));
    };
    return CallUnary<v1::ListWorkersResponse>(start, v1::ListWorkersRequest(),
                                              kCallTimeout);
  };
  Patience once;
  once.deadline = absl::InfinitePast();
  co_return co_await CallAny<v1::ListWorkersResponse>(
      stubs_->rotation, once, Reason::kRouterUnavailable, "the router", call);
}

}  // namespace caravan::gateway
