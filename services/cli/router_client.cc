#include "services/cli/router_client.h"

#include "caravan/v1/router.grpc.pb.h"
#include "common/status/status_macros.h"
#include "services/cli/unary_client.h"

namespace caravan::cli {

absl::StatusOr<v1::ListWorkersResponse> ListWorkers(
    const ClientOptions& options, const std::string& model) {
  CARAVAN_ASSIGN_OR_RETURN(const auto channel, OpenChannel(options));
  const auto stub = v1::RouterService::NewStub(channel);
  v1::ListWorkersRequest request;
  request.set_model(model);
  return CallAndWait<v1::ListWorkersResponse>(
      options, [&](auto* context, auto* response, auto done) {
        stub->async()->ListWorkers(context, &request, response, done);
      });
}

}  // namespace caravan::cli
