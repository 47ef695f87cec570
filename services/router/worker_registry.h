// The fleet's membership as soft state: who registered, who is alive, what
// was placed since the last heartbeats. Nothing is kept on disk; replicas
// register with every router and again after any break.
//
// Not thread-safe. Time comes from the injected clock.
#ifndef CARAVAN_SERVICES_ROUTER_WORKER_REGISTRY_H_
#define CARAVAN_SERVICES_ROUTER_WORKER_REGISTRY_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "services/router/replica.h"

namespace caravan::router {

struct RegistryOptions {
  absl::Duration heartbeat_interval = absl::Milliseconds(500);
  // A heartbeat counts as missed when it is late by half an interval, so that
  // a busy machine's jitter costs no placements.
  int suspect_after_missed = 2;  // no placements
  int dead_after_missed = 4;     // removed
  // A heartbeat shows what was placed at least this long before it.
  absl::Duration credit_settles = absl::Milliseconds(100);
  // Credit of a replica that tells nothing.
  absl::Duration credit_expires = absl::Seconds(2);
  int max_replicas = 4096;
  int max_credits = 1024;  // per replica; older ones go first
};

class WorkerRegistry {
 public:
  WorkerRegistry(const RegistryOptions& options, const Clock* clock)
      : options_(options), clock_(clock) {}

  enum class Registered { kNew, kNewEpoch, kUpdated };

  // Takes what `stream` says of its replica. A known worker id is replaced.
  // Errors: kInvalidField naming the field; kIdentityMismatch when another
  // replica of the same model name and weights id has another tokenizer, when
  // one of the same numerics class has another fingerprint (one of the two
  // computes wrong bits), or when the worker id is held by a living replica at
  // another address;
  // kQueueFull at max_replicas.
  absl::StatusOr<Registered> Register(int64_t stream, const ReplicaInfo& info);

  // Errors: kNoReplica when `stream` no longer speaks for a replica (removed,
  // or replaced by another stream): it has to register again.
  absl::Status Heartbeat(int64_t stream, const ReplicaLoad& load,
                         bool draining);

  // The stream broke: suspect at once, gone when it does not come back in
  // time; gone at once when it was draining. Returns whether a replica that
  // was not draining lost its stream.
  bool Disconnect(int64_t stream);

  // Removes the dead and returns their worker ids.
  std::vector<std::string> RemoveDead();

  // kBroken is not the registry's to know.
  ReplicaState StateOf(const Replica& replica) const;

  // Until when the replica gets placements, were nothing more heard of it.
  absl::Time ReadyUntil(const Replica& replica) const;

  // Changes with every change of membership or of what a replica registered.
  int64_t version() const { return version_; }

  // Notes that `credit` was placed on `replica`.
  void AddCredit(Replica& replica, const Credit& credit) const;

  // All credit of a replica that still counts.
  Credit CreditOf(const Replica& replica) const;

  // In the order of registration.
  const std::vector<std::unique_ptr<Replica>>& replicas() const {
    return replicas_;
  }
  Replica* FindByWorker(const std::string& worker_id) const;
  Replica* FindByStream(int64_t stream) const;

  // Names of the models that have been registered, also of replicas that are
  // gone: asking for them again can help.
  const std::set<std::string>& known_models() const { return known_models_; }

 private:
  absl::Status CheckPeers(const ReplicaInfo& info) const;
  absl::Status CheckUnique(int64_t stream, const ReplicaInfo& info) const;
  absl::Duration LateAfter(int missed) const;
  Replica* FindOrAdd(const std::string& worker_id);
  void Remove(const Replica* replica);

  const RegistryOptions options_;
  const Clock* const clock_;
  std::vector<std::unique_ptr<Replica>> replicas_;
  absl::flat_hash_map<std::string, Replica*> by_worker_;
  absl::flat_hash_map<int64_t, Replica*> by_stream_;
  int64_t version_ = 0;
  std::set<std::string> known_models_;  // at most max_replicas
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_WORKER_REGISTRY_H_
