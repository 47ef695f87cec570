// What the router knows of a replica, free of the wire: plain data that the
// registry keeps and the policies weigh.
#ifndef CARAVAN_SERVICES_ROUTER_REPLICA_H_
#define CARAVAN_SERVICES_ROUTER_REPLICA_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace caravan::v1 {
class Registration;  // the pure core only carries it along
}

namespace caravan::router {

// Hashes are raw bytes, 32 each.
struct Identity {
  std::string weights_id;
  std::string numerics_class;
  std::string fingerprint;
  std::string tokenizer_id;
  std::string template_id;  // may be empty

  // Inside it a stream continues bit for bit.
  bool SameClass(const Identity& other) const {
    return weights_id == other.weights_id &&
           numerics_class == other.numerics_class &&
           fingerprint == other.fingerprint;
  }
};

// What a replica registered.
struct ReplicaInfo {
  std::string worker_id;
  std::string address;  // HOST:PORT that gateways reach
  uint64_t epoch = 0;
  std::string model;
  Identity identity;
  int32_t context_length = 0;   // tokens
  int32_t vocabulary_size = 0;  // ids
  int32_t block_size = 0;       // tokens
  int32_t block_count = 0;
  int32_t max_running_count = 0;
  std::vector<int> features;  // values of caravan.v1.Feature
  bool takes_whole = false;   // prefill and decode
  std::shared_ptr<const v1::Registration> registration;  // as it was sent
};

// What its last heartbeat said; zeros before the first.
struct ReplicaLoad {
  int32_t running_count = 0;
  int32_t waiting_count = 0;
  int32_t leased_blocks = 0;
  int32_t cached_blocks = 0;
  int64_t queued_prefill_tokens = 0;
  float decode_tokens_per_second = 0;   // 0: not known yet
  float prefill_tokens_per_second = 0;  // 0: not known yet
};

// Work that was placed on a replica and that its load does not show yet.
// Without it every request of a burst would go to the same least loaded
// replica until the next heartbeat.
struct Credit {
  absl::Time placed_at;
  int64_t sequences = 0;
  int64_t prefill_tokens = 0;
  int64_t blocks = 0;
};

enum class ReplicaState { kReady, kSuspect, kDraining, kBroken };

// A replica in the registry.
struct Replica {
  ReplicaInfo info;
  ReplicaLoad load;
  int64_t stream = 0;  // the Register stream that speaks for it
  bool connected = true;
  bool draining = false;
  absl::Time last_seen;
  std::deque<Credit> credits;  // oldest first
  Credit credit_sum;           // of all of them
  size_t row = 0;              // in the placer's table
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_REPLICA_H_
