// absl::Status <-> grpc::Status and caravan.v1.Error, with reason, metadata,
// field violations and retry time (google.rpc.ErrorInfo, BadRequest,
// RetryInfo in the status details). Both directions are total.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_COMMON_STATUS_GRPC_STATUS_H_
#define CARAVAN_COMMON_STATUS_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "caravan/v1/error.pb.h"

namespace caravan {

grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

// For failures inside a multiplexed stream.
v1::Error ToProtoError(const absl::Status& status);
absl::Status FromProtoError(const v1::Error& error);

}  // namespace caravan

#endif  // CARAVAN_COMMON_STATUS_GRPC_STATUS_H_
