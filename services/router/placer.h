// Answers placements: joins membership, prefix index, breakers and policy.
//
//   replicas of the model -> that know the features -> of the class -> ready
//   and not excluded -> ranked by the policy -> the best few
//
// Not thread-safe. Time comes from the injected clock.
#ifndef CARAVAN_SERVICES_ROUTER_PLACER_H_
#define CARAVAN_SERVICES_ROUTER_PLACER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/kv/block_hash.h"
#include "services/router/block_index.h"
#include "services/router/circuit_breaker.h"
#include "services/router/policy.h"
#include "services/router/replica.h"
#include "services/router/worker_registry.h"

namespace caravan::router {

struct PlaceQuery {
  std::string model;  // may be empty where one model is served
  std::vector<std::vector<kv::BlockHash>> chains;  // one for each identity
  int32_t prompt_tokens = 0;
  int32_t expected_output_tokens = 0;
  int32_t priority = 0;
  std::optional<Identity> required_identity;  // its class alone counts
  std::vector<int> required_features;
  std::vector<std::string> excluded_worker_ids;
  std::string routing_key;
};

struct Placement {
  ReplicaInfo replica;
  int32_t matched_blocks = 0;
};

struct PlacerOptions {
  RegistryOptions registry;
  CircuitBreakerOptions breaker;
  int64_t max_index_entries = BlockIndex::kDefaultMaxEntries;
  int max_targets = 4;
  // With errors that time can mend: two heartbeats.
  absl::Duration retry_after = absl::Seconds(1);
};

class Placer {
 public:
  Placer(const PlacerOptions& options, const Clock* clock,
         std::unique_ptr<Policy> policy);

  // Best first, at least one and at most max_targets; the first is credited
  // with the request's work. Errors: kInvalidField (empty model and several
  // served), kModelNotFound listing the known names, kUnsupportedFeature,
  // kNoReplicaOfClass, kNoReplica (the last two with a retry time).
  absl::StatusOr<std::vector<Placement>> Place(const PlaceQuery& query);

  // As in WorkerRegistry; the index forgets what belongs to an old epoch.
  absl::StatusOr<WorkerRegistry::Registered> Register(int64_t stream,
                                                      const ReplicaInfo& info);
  absl::Status Heartbeat(int64_t stream, const ReplicaLoad& load,
                         bool draining);
  // Returns the worker id of the replica that `stream` spoke for.
  std::optional<std::string> Disconnect(int64_t stream);

  // As BlockIndex::Apply for the replica of `stream`; kRepeated when it
  // speaks for none.
  BlockIndex::Applied ApplyKvChange(int64_t stream, const KvChange& change);
  // The last number that was understood from the replica of `stream`.
  int64_t LastSequenceNumber(int64_t stream) const;

  // Removes dead replicas and forgotten breakers; returns the dead.
  std::vector<std::string> Tick();

  ReplicaState StateOf(const Replica& replica) const;
  // Replicas in each state, indexed by ReplicaState.
  std::array<int, 4> CountByState() const;

  const Policy& policy() const { return *policy_; }
  const BlockIndex& index() const { return index_; }
  const WorkerRegistry& registry() const { return registry_; }

 private:
  absl::StatusOr<std::string> ResolveModel(const std::string& model) const;
  // Replicas of one model, from row `begin` of rows_ on.
  struct Pool {
    size_t begin = 0;
    CandidateTable candidates;
    std::vector<int64_t> ready_until_nanos;  // since the epoch, by candidate
    // Until then, and while no replica's state changes, the candidates that
    // may serve a plain query are marked.
    int64_t marked_until_nanos = INT64_MIN;
    int marked_count = 0;
  };

  void RebuildRows();
  void AppendRow(Replica* replica);
  void UpdateRow(const Replica& replica);
  absl::StatusOr<int> MarkAvailable(const PlaceQuery& query,
                                    const std::string& model, Pool& pool);
  void MarkReady(Pool& pool);
  void KeepFromBroken(Pool& pool);
  absl::StatusOr<int> MarkChecked(const PlaceQuery& query,
                                  const std::string& model, Pool& pool);
  void NoteFailure(const std::string& worker_id);
  void SetMatches(const PlaceQuery& query, Pool& pool);
  void ClearMatches(Pool& pool);
  static bool IsInPool(const BlockMatch& match, const Pool& pool);
  void CreditFirst(Replica& replica, const Candidate& candidate,
                   const PlaceQuery& query);
  bool IsBroken(const Replica& replica) const;

  const PlacerOptions options_;
  const Clock* const clock_;
  const std::unique_ptr<Policy> policy_;
  WorkerRegistry registry_;
  BlockIndex index_;
  absl::flat_hash_map<std::string, CircuitBreaker> breakers_;  // by worker id

  // What the policy sees, kept up to date instead of made for each placement:
  // one row for each replica, those of a model together.
  int64_t rows_version_ = -1;  // of the registry
  std::vector<Replica*> rows_;
  std::map<std::string, Pool> pools_;  // by model
  std::vector<Pool*> pool_of_row_;
  std::vector<BlockMatch> matches_;  // of the placement under way
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_PLACER_H_
