// Converts and checks what comes over the wire: nothing behind this file sees
// a number out of range or a hash of the wrong size.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_SERVICES_ROUTER_WIRE_H_
#define CARAVAN_SERVICES_ROUTER_WIRE_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caravan/v1/router.pb.h"
#include "google/protobuf/duration.pb.h"
#include "services/router/block_index.h"
#include "services/router/placer.h"
#include "services/router/replica.h"

namespace caravan::router {

// Limits of a PlaceRequest.
inline constexpr int kMaxChains = 16;
inline constexpr int kMaxChainBlocks = 1 << 16;  // a million tokens
inline constexpr int kMaxExcluded = 256;
inline constexpr int kMaxPriority = 100;

// Errors: kInvalidField; kUnsupportedParameter for an adapter.
absl::StatusOr<PlaceQuery> ToQuery(const v1::PlaceRequest& request);

// The registry checks the fields; the registration is kept with them.
ReplicaInfo ToReplicaInfo(const v1::Registration& registration);

// Negative numbers and speeds that are not finite count as 0.
ReplicaLoad ToReplicaLoad(const v1::Load& load);

// Errors: kInvalidField for a hash that is not of 16 bytes or a negative
// sequence number.
absl::StatusOr<KvChange> ToKvChange(const v1::KvEvents& events);

v1::Load ToProto(const ReplicaLoad& load, int32_t block_count);
v1::WorkerState ToProto(ReplicaState state);
google::protobuf::Duration ToProto(absl::Duration duration);

// Errors: kProtocolMismatch when no revision is spoken by both.
absl::Status CheckHello(const v1::Hello& hello);

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_WIRE_H_
