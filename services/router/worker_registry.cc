#include "services/router/worker_registry.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>
#include <utility>

#include "common/kv/block_hash.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::router {
namespace {

constexpr size_t kMaxNameBytes = 256;
constexpr size_t kHashBytes = 32;

absl::Status CheckName(std::string_view field, std::string_view name) {
  if (!name.empty() && name.size() <= kMaxNameBytes) return absl::OkStatus();
  return FieldError(field, StrCat("1 to ", kMaxNameBytes, " bytes"),
                    StrCat(name.size(), " bytes"));
}

absl::Status CheckHash(std::string_view field, std::string_view hash) {
  if (hash.size() == kHashBytes) return absl::OkStatus();
  return FieldError(field, StrCat(kHashBytes, " bytes"),
                    StrCat(hash.size(), " bytes"));
}

absl::Status CheckPositive(std::string_view field, int32_t value) {
  if (value > 0) return absl::OkStatus();
  return FieldError(field, "greater than 0", StrCat(value));
}

absl::Status CheckIdentity(const Identity& identity) {
  CARAVAN_RETURN_IF_ERROR(
      CheckHash("model.identity.weights_id", identity.weights_id));
  CARAVAN_RETURN_IF_ERROR(
      CheckName("model.identity.numerics_class", identity.numerics_class));
  CARAVAN_RETURN_IF_ERROR(
      CheckHash("model.identity.fingerprint", identity.fingerprint));
  CARAVAN_RETURN_IF_ERROR(
      CheckHash("model.identity.tokenizer_id", identity.tokenizer_id));
  if (identity.template_id.empty()) return absl::OkStatus();
  return CheckHash("model.identity.template_id", identity.template_id);
}

absl::Status CheckLimits(const ReplicaInfo& info) {
  CARAVAN_RETURN_IF_ERROR(
      CheckPositive("model.context_length", info.context_length));
  CARAVAN_RETURN_IF_ERROR(
      CheckPositive("model.vocabulary_size", info.vocabulary_size));
  CARAVAN_RETURN_IF_ERROR(CheckPositive("model.block_count", info.block_count));
  CARAVAN_RETURN_IF_ERROR(
      CheckPositive("model.max_running_count", info.max_running_count));
  if (info.block_size != kv::kBlockTokens) {
    return FieldError("model.block_size", StrCat(kv::kBlockTokens),
                      StrCat(info.block_size));
  }
  return absl::OkStatus();
}

absl::Status CheckInfo(const ReplicaInfo& info) {
  CARAVAN_RETURN_IF_ERROR(CheckName("worker_id", info.worker_id));
  CARAVAN_RETURN_IF_ERROR(CheckName("address", info.address));
  if (info.address.find(':') == std::string::npos) {
    return FieldError("address", "HOST:PORT", info.address);
  }
  if (info.epoch == 0) return FieldError("epoch", "greater than 0", "0");
  CARAVAN_RETURN_IF_ERROR(CheckName("model.name", info.model));
  CARAVAN_RETURN_IF_ERROR(CheckIdentity(info.identity));
  CARAVAN_RETURN_IF_ERROR(CheckLimits(info));
  if (!info.takes_whole) {
    return FieldError("roles", "a list with TARGET_ROLE_WHOLE",
                      "a list without");
  }
  return absl::OkStatus();
}

void Add(Credit& sum, const Credit& credit) {
  sum.sequences += credit.sequences;
  sum.prefill_tokens += credit.prefill_tokens;
  sum.blocks += credit.blocks;
}

void Subtract(Credit& sum, const Credit& credit) {
  sum.sequences -= credit.sequences;
  sum.prefill_tokens -= credit.prefill_tokens;
  sum.blocks -= credit.blocks;
}

}  // namespace

absl::Duration WorkerRegistry::LateAfter(int missed) const {
  return options_.heartbeat_interval * (missed + 0.5);
}

Replica* WorkerRegistry::FindByWorker(const std::string& worker_id) const {
  const auto it = by_worker_.find(worker_id);
  return it == by_worker_.end() ? nullptr : it->second;
}

Replica* WorkerRegistry::FindByStream(int64_t stream) const {
  const auto it = by_stream_.find(stream);
  return it == by_stream_.end() ? nullptr : it->second;
}

Replica* WorkerRegistry::FindOrAdd(const std::string& worker_id) {
  Replica*& replica = by_worker_[worker_id];
  if (replica == nullptr) {
    replicas_.push_back(std::make_unique<Replica>());
    replica = replicas_.back().get();
  }
  return replica;
}

void WorkerRegistry::Remove(const Replica* replica) {
  by_worker_.erase(replica->info.worker_id);
  by_stream_.erase(replica->stream);
  std::erase_if(replicas_,
                [&](const auto& entry) { return entry.get() == replica; });
  ++version_;
}

absl::Status WorkerRegistry::CheckPeers(const ReplicaInfo& info) const {
  for (const auto& peer : replicas_) {
    if (peer->info.worker_id == info.worker_id) continue;
    const bool same_model =
        peer->info.model == info.model &&
        peer->info.identity.weights_id == info.identity.weights_id;
    if (same_model &&
        peer->info.identity.tokenizer_id != info.identity.tokenizer_id) {
      return MakeError(
          Reason::kIdentityMismatch,
          StrCat("the tokenizer of model ", info.model, " must equal that of ",
                 peer->info.worker_id, ", which has the same weights; got ",
                 "another from ", info.worker_id),
          {{"model", info.model},
           {"peer", peer->info.worker_id},
           {"worker_id", info.worker_id}});
    }
    if (peer->info.identity.numerics_class == info.identity.numerics_class &&
        peer->info.identity.fingerprint != info.identity.fingerprint) {
      return MakeError(
          Reason::kIdentityMismatch,
          StrCat("the fingerprint of class ", info.identity.numerics_class,
                 " must equal that of ", peer->info.worker_id,
                 "; got another from ", info.worker_id),
          {{"numerics_class", info.identity.numerics_class},
           {"peer", peer->info.worker_id},
           {"worker_id", info.worker_id}});
    }
  }
  return absl::OkStatus();
}

absl::Status WorkerRegistry::CheckUnique(int64_t stream,
                                         const ReplicaInfo& info) const {
  const Replica* const holder = FindByWorker(info.worker_id);
  if (holder == nullptr || holder->stream == stream || !holder->connected ||
      StateOf(*holder) == ReplicaState::kSuspect ||
      holder->info.address == info.address) {
    return absl::OkStatus();
  }
  return MakeError(
      Reason::kIdentityMismatch,
      StrCat("worker_id must be unique in the fleet; ", info.worker_id,
             " lives at ", holder->info.address),
      {{"worker_id", info.worker_id}, {"address", holder->info.address}});
}

absl::StatusOr<WorkerRegistry::Registered> WorkerRegistry::Register(
    int64_t stream, const ReplicaInfo& info) {
  CARAVAN_RETURN_IF_ERROR(CheckInfo(info));
  CARAVAN_RETURN_IF_ERROR(CheckPeers(info));
  const Replica* const spoken_for = FindByStream(stream);
  if (spoken_for && spoken_for->info.worker_id != info.worker_id) {
    return FieldError("worker_id",
                      StrCat("that of the stream's first registration, ",
                             spoken_for->info.worker_id),
                      info.worker_id);
  }
  CARAVAN_RETURN_IF_ERROR(CheckUnique(stream, info));
  Replica* replica = FindByWorker(info.worker_id);
  const bool known = replica != nullptr;
  if (!known) {
    if (std::ssize(replicas_) >= options_.max_replicas) {
      return MakeError(Reason::kQueueFull,
                       StrCat("a router takes at most ", options_.max_replicas,
                              " replicas"));
    }
    replica = FindOrAdd(info.worker_id);
  }
  const bool new_epoch = known && replica->info.epoch != info.epoch;
  if (known) by_stream_.erase(replica->stream);
  if (new_epoch) *replica = Replica();
  replica->info = info;
  replica->stream = stream;
  by_stream_[stream] = replica;
  ++version_;
  replica->connected = true;
  replica->last_seen = clock_->Now();
  if (std::ssize(known_models_) < options_.max_replicas) {
    known_models_.insert(info.model);
  }
  return !known      ? Registered::kNew
         : new_epoch ? Registered::kNewEpoch
                     : Registered::kUpdated;
}

absl::Status WorkerRegistry::Heartbeat(int64_t stream, const ReplicaLoad& load,
                                       bool draining) {
  Replica* const replica = FindByStream(stream);
  if (replica == nullptr) {
    return MakeError(Reason::kNoReplica,
                     "this stream speaks for no replica any more; register "
                     "again");
  }
  const absl::Time now = clock_->Now();
  replica->load = load;
  replica->draining = draining;
  replica->last_seen = now;
  std::deque<Credit>& credits = replica->credits;
  while (!credits.empty() &&
         now - credits.front().placed_at >= options_.credit_settles) {
    Subtract(replica->credit_sum, credits.front());
    credits.pop_front();
  }
  return absl::OkStatus();
}

bool WorkerRegistry::Disconnect(int64_t stream) {
  Replica* const replica = FindByStream(stream);
  if (replica == nullptr) return false;
  replica->connected = false;
  if (!replica->draining) return true;
  Remove(replica);
  return false;
}

std::vector<std::string> WorkerRegistry::RemoveDead() {
  const absl::Time now = clock_->Now();
  std::vector<const Replica*> dead;
  for (const auto& replica : replicas_) {
    const absl::Duration age = now - replica->last_seen;
    if (age >= LateAfter(options_.dead_after_missed)) {
      dead.push_back(replica.get());
    }
  }
  std::vector<std::string> removed;
  for (const Replica* const replica : dead) {
    removed.push_back(replica->info.worker_id);
    Remove(replica);
  }
  return removed;
}

absl::Time WorkerRegistry::ReadyUntil(const Replica& replica) const {
  if (!replica.connected || replica.draining) return absl::InfinitePast();
  return replica.last_seen + LateAfter(options_.suspect_after_missed);
}

ReplicaState WorkerRegistry::StateOf(const Replica& replica) const {
  if (!replica.connected) return ReplicaState::kSuspect;
  const absl::Duration age = clock_->Now() - replica.last_seen;
  if (age >= LateAfter(options_.suspect_after_missed)) {
    return ReplicaState::kSuspect;
  }
  return replica.draining ? ReplicaState::kDraining : ReplicaState::kReady;
}

void WorkerRegistry::AddCredit(Replica& replica, const Credit& credit) const {
  std::deque<Credit>& credits = replica.credits;
  credits.push_back(credit);
  credits.back().placed_at = clock_->Now();
  Add(replica.credit_sum, credit);
  if (std::ssize(credits) > options_.max_credits) {
    Subtract(replica.credit_sum, credits.front());
    credits.pop_front();
  }
}

Credit WorkerRegistry::CreditOf(const Replica& replica) const {
  const absl::Time now = clock_->Now();
  Credit sum = replica.credit_sum;
  for (const Credit& credit : replica.credits) {
    if (now - credit.placed_at < options_.credit_expires) break;
    Subtract(sum, credit);
  }
  return sum;
}

}  // namespace caravan::router
