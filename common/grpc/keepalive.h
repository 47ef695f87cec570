// How connections notice that the other machine is gone: both sides ping, also
// when nothing is being said, and each permits the other's pings.
#ifndef CARAVAN_COMMON_GRPC_KEEPALIVE_H_
#define CARAVAN_COMMON_GRPC_KEEPALIVE_H_

namespace caravan {

inline constexpr int kKeepaliveTimeMs = 5000;
inline constexpr int kKeepaliveTimeoutMs = 3000;
// A peer that pings more often than this is told to go away.
inline constexpr int kLeastPingIntervalMs = 1000;
static_assert(kLeastPingIntervalMs * 2 < kKeepaliveTimeMs);

}  // namespace caravan

#endif  // CARAVAN_COMMON_GRPC_KEEPALIVE_H_
