#include "services/router/placer.h"

#include <algorithm>
#include <set>
#include <span>
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

// --- Rows --------------------------------------------------------------------

void Placer::RebuildRows() {
  rows_version_ = registry_.version();
  rows_.clear();
  for (const auto& replica : registry_.replicas()) {
    rows_.push_back(replica.get());
  }
  std::stable_sort(rows_.begin(), rows_.end(),
                   [](const auto* a, const auto* b) {
                     return a->info.model < b->info.model;
                   });
  pools_.clear();
  pool_of_row_.clear();
  for (Replica* const replica : rows_) AppendRow(replica);
}

void Placer::AppendRow(Replica* replica) {
  const ReplicaInfo& info = replica->info;
  replica->row = pool_of_row_.size();
  const auto [it, is_new] = pools_.try_emplace(info.model);
  Pool& pool = it->second;
  if (is_new) pool.begin = replica->row;
  pool_of_row_.push_back(&pool);
  pool.candidates.Append({.worker_id = info.worker_id,
                          .load = {},
                          .credit = {},
                          .block_size = info.block_size,
                          .block_count = info.block_count,
                          .max_running_count = info.max_running_count});
  pool.ready_until_nanos.push_back(0);
  index_.Bind(info.worker_id, static_cast<int32_t>(replica->row));
  UpdateRow(*replica);
}

void Placer::UpdateRow(const Replica& replica) {
  if (rows_version_ != registry_.version()) return;  // to be rebuilt
  Pool& pool = *pool_of_row_[replica.row];
  const size_t i = replica.row - pool.begin;
  pool.candidates.SetLoad(i, replica.load, registry_.CreditOf(replica));
  const int64_t ready_until = absl::ToUnixNanos(registry_.ReadyUntil(replica));
  const int64_t before = std::exchange(pool.ready_until_nanos[i], ready_until);
  const bool stays = ready_until == before ||
                     (ready_until > before && pool.candidates.available(i));
  if (!stays) pool.marked_until_nanos = INT64_MIN;
}

// --- Who may serve -----------------------------------------------------------

bool Placer::IsBroken(const Replica& replica) const {
  const auto it = breakers_.find(replica.info.worker_id);
  return it != breakers_.end() && it->second.IsOpen(clock_->Now());
}

void Placer::NoteFailure(const std::string& worker_id) {
  for (auto& [model, pool] : pools_) pool.marked_until_nanos = INT64_MIN;
  breakers_.try_emplace(worker_id, CircuitBreaker(options_.breaker))
      .first->second.RecordFailure(clock_->Now());
}

// Marks who may serve and returns how many do. Most queries ask for nothing
// in particular: for them the marks stand until a replica's state changes.
absl::StatusOr<int> Placer::MarkAvailable(const PlaceQuery& query,
                                          const std::string& model,
                                          Pool& pool) {
  const bool plain = query.required_features.empty() &&
                     !query.required_identity &&
                     query.excluded_worker_ids.empty();
  if (!plain) {
    pool.marked_until_nanos = INT64_MIN;
    return MarkChecked(query, model, pool);
  }
  if (absl::ToUnixNanos(clock_->Now()) >= pool.marked_until_nanos) {
    MarkReady(pool);
    KeepFromBroken(pool);
  }
  return pool.marked_count;
}

void Placer::MarkReady(Pool& pool) {
  const int64_t now = absl::ToUnixNanos(clock_->Now());
  pool.marked_until_nanos = INT64_MAX;
  pool.marked_count = 0;
  for (size_t i = 0; i < pool.candidates.size(); ++i) {
    const int64_t until = pool.ready_until_nanos[i];
    const bool ready = now < until;
    pool.candidates.SetAvailable(i, ready);
    if (!ready) continue;
    ++pool.marked_count;
    pool.marked_until_nanos = std::min(pool.marked_until_nanos, until);
  }
}

// Unless all who are ready are broken.
void Placer::KeepFromBroken(Pool& pool) {
  const absl::Time now = clock_->Now();
  std::vector<size_t> broken;
  for (const auto& [worker_id, breaker] : breakers_) {
    const Replica* const replica = registry_.FindByWorker(worker_id);
    if (!breaker.IsOpen(now) || replica == nullptr) continue;
    if (pool_of_row_[replica->row] != &pool) continue;
    const size_t i = replica->row - pool.begin;
    if (!pool.candidates.available(i)) continue;
    broken.push_back(i);
    pool.marked_until_nanos = std::min(pool.marked_until_nanos,
                                       absl::ToUnixNanos(breaker.open_until()));
  }
  if (std::ssize(broken) == pool.marked_count) return;
  for (const size_t i : broken) pool.candidates.SetAvailable(i, false);
  pool.marked_count -= static_cast<int>(broken.size());
}

// Those whose breaker is open only when there are no others: a replica that
// may fail is better than none.
absl::StatusOr<int> Placer::MarkChecked(const PlaceQuery& query,
                                        const std::string& model, Pool& pool) {
  const int64_t now = absl::ToUnixNanos(clock_->Now());
  int eligible = 0;
  bool feature_missing = false;
  std::vector<size_t> sound;
  std::vector<size_t> broken;
  for (size_t i = 0; i < pool.candidates.size(); ++i) {
    pool.candidates.SetAvailable(i, false);
    const Replica& replica = *rows_[pool.begin + i];
    const ReplicaInfo& info = replica.info;
    if (!Knows(replica, query.required_features)) {
      feature_missing = true;
      continue;
    }
    if (query.required_identity &&
        !query.required_identity->SameClass(info.identity)) {
      continue;
    }
    ++eligible;
    if (now >= pool.ready_until_nanos[i]) continue;
    if (Contains(query.excluded_worker_ids, info.worker_id)) {
      // Registered, ready, and yet somebody does not want it: a failure.
      NoteFailure(info.worker_id);
    } else {
      (IsBroken(replica) ? broken : sound).push_back(i);
    }
  }
  if (eligible == 0 && feature_missing) {
    return MakeError(
        Reason::kUnsupportedFeature,
        StrCat("no replica of model ", model, " knows all required_features"),
        {{"model", model}});
  }
  const std::vector<size_t>& chosen = sound.empty() ? broken : sound;
  for (const size_t i : chosen) pool.candidates.SetAvailable(i, true);
  return static_cast<int>(chosen.size());
}

// --- Place -------------------------------------------------------------------

// A chain is of one identity, so a replica matches at most one of them; other
// models may have the same weights, and their replicas the same blocks.
void Placer::SetMatches(const PlaceQuery& query, Pool& pool) {
  matches_.clear();
  for (const auto& chain : query.chains) index_.Match(chain, &matches_);
  for (const BlockMatch& match : matches_) {
    if (!IsInPool(match, pool)) continue;
    const size_t i = static_cast<size_t>(match.tag) - pool.begin;
    const Candidate& candidate = pool.candidates[i];
    const int32_t blocks =
        std::min(match.blocks, query.prompt_tokens / candidate.block_size);
    pool.candidates.SetMatchedBlocks(
        i, std::max(candidate.matched_blocks, blocks));
  }
}

void Placer::ClearMatches(Pool& pool) {
  for (const BlockMatch& match : matches_) {
    if (!IsInPool(match, pool)) continue;
    pool.candidates.SetMatchedBlocks(
        static_cast<size_t>(match.tag) - pool.begin, 0);
  }
}

bool Placer::IsInPool(const BlockMatch& match, const Pool& pool) {
  return match.tag >= 0 && static_cast<size_t>(match.tag) >= pool.begin &&
         static_cast<size_t>(match.tag) - pool.begin < pool.candidates.size();
}

void Placer::CreditFirst(Replica& replica, const Candidate& candidate,
                         const PlaceQuery& query) {
  Credit credit;
  credit.sequences = 1;
  credit.prefill_tokens =
      query.prompt_tokens -
      int64_t{candidate.matched_blocks} * candidate.block_size;
  credit.blocks =
      BlocksFor(int64_t{query.prompt_tokens} + query.expected_output_tokens,
                candidate.block_size);
  registry_.AddCredit(replica, credit);
  UpdateRow(replica);
}

absl::StatusOr<std::vector<Placement>> Placer::Place(const PlaceQuery& query) {
  CARAVAN_ASSIGN_OR_RETURN(const std::string model, ResolveModel(query.model));
  if (rows_version_ != registry_.version()) RebuildRows();
  Pool& pool = pools_[model];
  CARAVAN_ASSIGN_OR_RETURN(const int available,
                           MarkAvailable(query, model, pool));
  if (available == 0) {
    return query.required_identity
               ? NoReplica(Reason::kNoReplicaOfClass, model,
                           StrCat("of class ",
                                  query.required_identity->numerics_class,
                                  " is ready"),
                           options_.retry_after)
               : NoReplica(Reason::kNoReplica, model, "is ready",
                           options_.retry_after);
  }

  SetMatches(query, pool);
  PlacementQuery ranked_query;
  ranked_query.prompt_tokens = query.prompt_tokens;
  ranked_query.expected_output_tokens = query.expected_output_tokens;
  ranked_query.priority = query.priority;
  ranked_query.affinity_key = AffinityKey(query);
  const std::vector<size_t> order = policy_->Rank(
      ranked_query, pool.candidates, static_cast<size_t>(options_.max_targets));
  std::vector<Placement> placements;
  placements.reserve(order.size());
  for (const size_t i : order) {
    placements.push_back(
        {rows_[pool.begin + i]->info, pool.candidates[i].matched_blocks});
  }
  const size_t first = order.front();
  CreditFirst(*rows_[pool.begin + first], pool.candidates[first], query);
  ClearMatches(pool);
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
  CARAVAN_RETURN_IF_ERROR(registry_.Heartbeat(stream, load, draining));
  UpdateRow(*registry_.FindByStream(stream));
  return absl::OkStatus();
}

std::optional<std::string> Placer::Disconnect(int64_t stream) {
  const Replica* const replica = registry_.FindByStream(stream);
  if (replica == nullptr) return std::nullopt;
  const std::string worker_id = replica->info.worker_id;
  if (registry_.Disconnect(stream)) {
    UpdateRow(*replica);
    NoteFailure(worker_id);
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
  index_.Sweep();
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
