// One blocking call over a callback stub.
#ifndef CARAVAN_SERVICES_CLI_UNARY_CLIENT_H_
#define CARAVAN_SERVICES_CLI_UNARY_CLIENT_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "common/grpc/channel.h"
#include "common/status/grpc_status.h"
#include "common/strings.h"
#include "services/cli/client_options.h"

namespace caravan::cli {

inline absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(
    const ClientOptions& options) {
  ChannelOptions channel;
  channel.tls = {options.tls_certificate_file, options.tls_key_file,
                 options.tls_ca_file};
  return MakeChannel(options.address, channel);
}

// Key and deadline of a call.
inline void PrepareContext(const ClientOptions& options,
                           grpc::ClientContext& context) {
  if (!options.api_key.empty()) {
    context.AddMetadata("authorization", StrCat("Bearer ", options.api_key));
  }
  if (options.timeout_s > 0) {
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::duration_cast<std::chrono::microseconds>(
                             std::chrono::duration<double>(options.timeout_s)));
  }
}

// `start(context, response, done)` begins the call. Returns its answer.
template <typename Response>
absl::StatusOr<Response> CallAndWait(
    const ClientOptions& options,
    const std::function<void(grpc::ClientContext*, Response*,
                             std::function<void(grpc::Status)>)>& start) {
  grpc::ClientContext context;
  PrepareContext(options, context);
  Response response;
  grpc::Status status;
  absl::Notification done;
  start(&context, &response, [&](grpc::Status s) {
    status = std::move(s);
    done.Notify();
  });
  done.WaitForNotification();
  if (!status.ok()) return FromGrpcStatus(status);
  return response;
}

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_UNARY_CLIENT_H_
