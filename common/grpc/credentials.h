// Reads the certificate and key files that servers and channels share.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_COMMON_GRPC_CREDENTIALS_H_
#define CARAVAN_COMMON_GRPC_CREDENTIALS_H_

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "absl/status/statusor.h"
#include "common/grpc/server.h"

namespace caravan {

// Errors (both): kInvalidField naming the flag when a certificate comes
// without a key or the other way round, or a file cannot be read.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const TlsOptions& tls);
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>>
MakeChannelCredentials(const TlsOptions& tls);

}  // namespace caravan

#endif  // CARAVAN_COMMON_GRPC_CREDENTIALS_H_
