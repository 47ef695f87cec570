#include "services/router/placer.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::router {
namespace {

// How many names an error lists.
constexpr size_t kMaxListedNames = 16;

std::string Join(const std::set<std::string>& names) {
  std::string joined;
  size_t listed = 0;
  for (const std::string& name : names) {
    if (listed++ == kMaxListedNames) return joined + ", ...";
    StrAppend(&joined, joined.empty() ? "" : ", ", name);
  }
  return joined;
}

bool Knows(const Replica& replica, const std::vector<int>& features) {
  const std::vector<int>& known = replica.info.features;
  return std::all_of(features.begin(), features.end(), [&](int feature) {
    return std::find(known.begin(), known.end(), feature) != known.end();
  });
}

bool Contains(const std::vector<std::string>& ids, const std::string& id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

int64_t BlocksFor(int64_t tokens, int32_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

// What belongs together: the client's key, else the prompt's first block.
std::string AffinityKey(const PlaceQuery& query) {
  if (!query.routing_key.empty()) return query.routing_key;
  for (const auto& chain : query.chains) {
    if (!chain.empty()) return chain.front().ToBytes();
  }
  return std::string();
}

absl::Status NoReplica(Reason reason, const std::string& model,
                       std::string_view why, absl::Duration retry_after) {
  return WithRetryAfter(
      MakeError(reason, StrCat("no replica of model ", model, " ", why),
                {{"model", model}}),
      retry_after);
}

}  // namespace

Placer::Placer(const PlacerOptions& options, const Clock* clock,
               std::unique_ptr<Policy> policy)
    : options_(options),
      clock_(clock),
      policy_(std::move(policy)),
      registry_(options.registry, clock),
      index_(options.max_index_entries) {}

absl::StatusOr<std::string> Placer::ResolveModel(
    const std::string& model) const {
  const std::set<std::string>& known = registry_.known_models();
  if (known.empty()) {
    return NoReplica(Reason::kNoReplica, model.empty() ? "(any)" : model,
                     "has registered yet", options_.retry_after);
  }
  if (!model.empty()) {
    if (known.contains(model)) return model;
    const std::string names = Join(known);
    return MakeError(Reason::kModelNotFound,
                     StrCat("model must be one of ", names, "; got ", model),
                     {{"models", names}, {"value", model}});
  }
  std::set<std::string> served;
  for (const auto& replica : registry_.replicas()) {
    served.insert(replica->info.model);
  }
  if (served.empty()) served = known;
  if (served.size() == 1) return *served.begin();
  return FieldError("model", StrCat("one of ", Join(served)), "none");
}

absl::StatusOr<Placer::Replicas> Placer::Eligible(const PlaceQuery& query,
                                                  const std::string& model) {
  Replicas eligible;
  bool feature_missing = false;
  for (const auto& replica : registry_.replicas()) {
    if (replica->info.model != model) continue;
    if (!Knows(*replica, query.required_features)) {
      feature_missing = true;
    } else if (!query.required_identity ||
               query.required_identity->SameClass(replica->info.identity)) {
      eligible.push_back(replica.get());
    }
  }
  if (!eligible.empty() || !feature_missing) return eligible;
  return MakeError(
      Reason::kUnsupportedFeature,
      StrCat("no replica of model ", model, " knows all required_features"),
      {{"model", model}});
}

bool Placer::IsBroken(const Replica& replica) const {
  const auto it = breakers_.find(replica.info.worker_id);
  return it != breakers_.end() && it->second.IsOpen(clock_->Now());
}

// Those whose breaker is open only when there are no others: a replica that
// may fail is better than none.
Placer::Replicas Placer::Available(const Replicas& eligible,
                                   const PlaceQuery& query) {
  Replicas sound;
  Replicas broken;
  for (Replica* const replica : eligible) {
    if (registry_.StateOf(*replica) != ReplicaState::kReady) continue;
    if (Contains(query.excluded_worker_ids, replica->info.worker_id)) {
      // Registered, ready, and yet somebody does not want it: a failure.
      breakers_
          .try_emplace(replica->info.worker_id,
                       CircuitBreaker(options_.breaker))
          .first->second.RecordFailure(clock_->Now());
    } else {
      (IsBroken(*replica) ? broken : sound).push_back(replica);
    }
  }
  return sound.empty() ? broken : sound;
}

Candidate Placer::MakeCandidate(const Replica& replica,
                                const PlaceQuery& query) const {
  int32_t matched = 0;
  for (const auto& chain : query.chains) {
    matched =
        std::max(matched, index_.MatchedBlocks(replica.info.worker_id, chain));
  }
  const ReplicaInfo& info = replica.info;
  Candidate candidate;
  candidate.worker_id = info.worker_id;
  candidate.load = replica.load;
  candidate.credit = registry_.CreditOf(replica);
  candidate.block_size = info.block_size;
  candidate.block_count = info.block_count;
  candidate.max_running_count = info.max_running_count;
  candidate.matched_blocks =
      std::min(matched, query.prompt_tokens / info.block_size);
  return candidate;
}

void Placer::CreditFirst(Replica& replica, const Candidate& candidate,
                         const PlaceQuery& query) const {
  Credit credit;
  credit.sequences = 1;
  credit.prefill_tokens =
      query.prompt_tokens -
      int64_t{candidate.matched_blocks} * candidate.block_size;
  credit.blocks =
      BlocksFor(int64_t{query.prompt_tokens} + query.expected_output_tokens,
                candidate.block_size);
  registry_.AddCredit(replica, credit);
}

absl::StatusOr<std::vector<Placement>> Placer::Place(const PlaceQuery& query) {
  CARAVAN_ASSIGN_OR_RETURN(const std::string model, ResolveModel(query.model));
  CARAVAN_ASSIGN_OR_RETURN(const Replicas eligible, Eligible(query, model));
  const Replicas available = Available(eligible, query);
  if (available.empty()) {
    return query.required_identity
               ? NoReplica(Reason::kNoReplicaOfClass, model,
                           StrCat("of class ",
                                  query.required_identity->numerics_class,
                                  " is ready"),
                           options_.retry_after)
               : NoReplica(Reason::kNoReplica, model, "is ready",
                           options_.retry_after);
  }

  std::vector<Candidate> candidates;
  for (const Replica* const replica : available) {
    candidates.push_back(MakeCandidate(*replica, query));
  }
  PlacementQuery ranked_query;
  ranked_query.prompt_tokens = query.prompt_tokens;
  ranked_query.expected_output_tokens = query.expected_output_tokens;
  ranked_query.affinity_key = AffinityKey(query);
  std::vector<size_t> order = policy_->Rank(ranked_query, candidates);
  if (std::ssize(order) > options_.max_targets) {
    order.resize(static_cast<size_t>(options_.max_targets));
  }
  CreditFirst(*available[order[0]], candidates[order[0]], query);

  std::vector<Placement> placements;
  for (const size_t i : order) {
    placements.push_back({available[i]->info, candidates[i].matched_blocks});
  }
  return placements;
}

absl::StatusOr<WorkerRegistry::Registered> Placer::Register(
    int64_t stream, const ReplicaInfo& info) {
  CARAVAN_ASSIGN_OR_RETURN(const WorkerRegistry::Registered registered,
                           registry_.Register(stream, info));
  if (registered == WorkerRegistry::Registered::kNewEpoch) {
    index_.Forget(info.worker_id);
  }
  return registered;
}

absl::Status Placer::Heartbeat(int64_t stream, const ReplicaLoad& load,
                               bool draining) {
  return registry_.Heartbeat(stream, load, draining);
}

std::optional<std::string> Placer::Disconnect(int64_t stream) {
  const Replica* const replica = registry_.FindByStream(stream);
  if (replica == nullptr) return std::nullopt;
  const std::string worker_id = replica->info.worker_id;
  if (registry_.Disconnect(stream)) {
    breakers_.try_emplace(worker_id, CircuitBreaker(options_.breaker))
        .first->second.RecordFailure(clock_->Now());
  } else {
    index_.Forget(worker_id);
  }
  return worker_id;
}

BlockIndex::Applied Placer::ApplyKvChange(int64_t stream,
                                          const KvChange& change) {
  const Replica* const replica = registry_.FindByStream(stream);
  if (replica == nullptr) return BlockIndex::Applied::kRepeated;
  return index_.Apply(replica->info.worker_id, change);
}

int64_t Placer::LastSequenceNumber(int64_t stream) const {
  const Replica* const replica = registry_.FindByStream(stream);
  return replica == nullptr
             ? 0
             : index_.LastSequenceNumber(replica->info.worker_id);
}

std::vector<std::string> Placer::Tick() {
  const std::vector<std::string> dead = registry_.RemoveDead();
  for (const std::string& worker_id : dead) index_.Forget(worker_id);
  const absl::Time now = clock_->Now();
  absl::erase_if(breakers_, [now](const auto& entry) {
    return entry.second.IsForgotten(now);
  });
  return dead;
}

ReplicaState Placer::StateOf(const Replica& replica) const {
  const ReplicaState state = registry_.StateOf(replica);
  return state == ReplicaState::kReady && IsBroken(replica)
             ? ReplicaState::kBroken
             : state;
}

std::array<int, 4> Placer::CountByState() const {
  std::array<int, 4> counts = {};
  for (const auto& replica : registry_.replicas()) {
    ++counts[static_cast<size_t>(StateOf(*replica))];
  }
  return counts;
}

}  // namespace caravan::router
