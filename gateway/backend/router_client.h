// The gateway's side of the router.
#ifndef CARAVAN_GATEWAY_BACKEND_ROUTER_CLIENT_H_
#define CARAVAN_GATEWAY_BACKEND_ROUTER_CLIENT_H_

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caravan/v1/router.pb.h"
#include "common/grpc/channel.h"
#include "gateway/backend/failover.h"

namespace caravan::gateway {

// Any router may be asked; the next one when one does not answer.
//
// Thread-safe.
class RouterClient {
 public:
  // `addresses` are HOST:PORT, at least one.
  static absl::StatusOr<std::unique_ptr<RouterClient>> Create(
      const std::vector<std::string>& addresses, const ChannelOptions& options);
  ~RouterClient();

  // Errors: those of RouterService.Place; kRouterUnavailable.
  boost::asio::awaitable<absl::StatusOr<v1::PlaceResponse>> Place(
      v1::PlaceRequest request, Patience patience);

  // Errors: kRouterUnavailable.
  boost::asio::awaitable<absl::StatusOr<v1::ListWorkersResponse>> ListWorkers();

 private:
  struct Stubs;
  explicit RouterClient(std::unique_ptr<Stubs> stubs);

  const std::unique_ptr<Stubs> stubs_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_BACKEND_ROUTER_CLIENT_H_
