// The one place where gRPC channels are made.
#ifndef CARAVAN_COMMON_GRPC_CHANNEL_H_
#define CARAVAN_COMMON_GRPC_CHANNEL_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/grpc/server.h"

namespace caravan {

struct ChannelOptions {
  TlsOptions tls = {};
  int max_message_bytes = 64 << 20;
  // Calls go round robin over all addresses of a DNS name; otherwise one
  // address is kept for as long as it answers.
  bool round_robin = false;
};

// A channel to HOST:PORT (or a DNS name with several addresses) that pings
// idle connections also without data, reconnects with backoff of 100 ms to
// 2 s, and shares no connection with other channels. Fails only on unreadable
// TLS files.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(
    const std::string& address, const ChannelOptions& options);

}  // namespace caravan

#endif  // CARAVAN_COMMON_GRPC_CHANNEL_H_
