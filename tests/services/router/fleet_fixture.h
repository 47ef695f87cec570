// Replicas for tests, with everything filled in that a registration needs.
#ifndef CARAVAN_TESTS_SERVICES_ROUTER_FLEET_FIXTURE_H_
#define CARAVAN_TESTS_SERVICES_ROUTER_FLEET_FIXTURE_H_

#include <string>
#include <vector>

#include "common/kv/block_hash.h"
#include "services/router/replica.h"

namespace caravan::router {

inline Identity TestIdentity(const std::string& numerics_class = "cpu/v1") {
  Identity identity;
  identity.weights_id = std::string(32, 'w');
  identity.numerics_class = numerics_class;
  identity.fingerprint = std::string(32, 'f');
  identity.tokenizer_id = std::string(32, 't');
  return identity;
}

inline ReplicaInfo TestReplica(const std::string& worker_id,
                               const std::string& model = "demo") {
  ReplicaInfo info;
  info.worker_id = worker_id;
  info.address = worker_id + ":8100";
  info.epoch = 1;
  info.model = model;
  info.identity = TestIdentity();
  info.context_length = 4096;
  info.vocabulary_size = 512;
  info.block_size = 16;
  info.block_count = 1000;
  info.max_running_count = 32;
  info.takes_whole = true;
  return info;
}

// Hashes of `count` blocks; the same start for the same `first_id`.
inline std::vector<kv::BlockHash> TestChain(int count, int first_id = 0) {
  std::vector<int32_t> ids(static_cast<size_t>(count) * kv::kBlockTokens,
                           first_id);
  return kv::HashChain(kv::HashRoot({}), ids);
}

}  // namespace caravan::router

#endif  // CARAVAN_TESTS_SERVICES_ROUTER_FLEET_FIXTURE_H_
