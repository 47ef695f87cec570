#include "services/router/wire.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/build_info.h"
#include "common/kv/block_hash.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::router {
namespace {

using Bytes = google::protobuf::RepeatedPtrField<std::string>;

absl::StatusOr<std::vector<kv::BlockHash>> ToHashes(std::string_view field,
                                                    const Bytes& hashes) {
  std::vector<kv::BlockHash> converted;
  converted.reserve(static_cast<size_t>(hashes.size()));
  for (const std::string& bytes : hashes) {
    const std::optional<kv::BlockHash> hash = kv::BlockHash::FromBytes(bytes);
    if (!hash) {
      return FieldError(field, "of hashes of 16 bytes",
                        StrCat(bytes.size(), " bytes"));
    }
    converted.push_back(*hash);
  }
  return converted;
}

absl::Status CheckSize(std::string_view field, int64_t size, int64_t most) {
  if (size <= most) return absl::OkStatus();
  return FieldError(field, StrCat("at most ", most, " entries"), StrCat(size));
}

absl::Status CheckNumbers(const v1::PlaceRequest& request) {
  if (request.prompt_token_count() < 0) {
    return FieldError("prompt_token_count", "at least 0",
                      StrCat(request.prompt_token_count()));
  }
  if (request.expected_output_token_count() < 0) {
    return FieldError("expected_output_token_count", "at least 0",
                      StrCat(request.expected_output_token_count()));
  }
  if (request.priority() < -kMaxPriority || request.priority() > kMaxPriority) {
    return FieldError("priority",
                      StrCat("in [-", kMaxPriority, ", ", kMaxPriority, "]"),
                      StrCat(request.priority()));
  }
  return absl::OkStatus();
}

Identity ToIdentity(const v1::ModelIdentity& identity) {
  return {identity.weights_id(), identity.numerics_class(),
          identity.fingerprint(), identity.tokenizer_id(),
          identity.template_id()};
}

template <typename T>
T NotNegative(T value) {
  return std::max(value, T{0});
}

float Speed(float value) {
  return std::isfinite(value) && value > 0 ? value : 0;
}

}  // namespace

absl::StatusOr<PlaceQuery> ToQuery(const v1::PlaceRequest& request) {
  if (!request.adapter().empty()) return UnsupportedError("adapter");
  CARAVAN_RETURN_IF_ERROR(CheckNumbers(request));
  CARAVAN_RETURN_IF_ERROR(
      CheckSize("chains", request.chains_size(), kMaxChains));
  CARAVAN_RETURN_IF_ERROR(CheckSize(
      "excluded_worker_ids", request.excluded_worker_ids_size(), kMaxExcluded));
  PlaceQuery query;
  query.model = request.model();
  for (const v1::BlockHashChain& chain : request.chains()) {
    CARAVAN_RETURN_IF_ERROR(
        CheckSize("chains.hashes", chain.hashes_size(), kMaxChainBlocks));
    CARAVAN_ASSIGN_OR_RETURN(query.chains.emplace_back(),
                             ToHashes("chains.hashes", chain.hashes()));
  }
  query.prompt_tokens = request.prompt_token_count();
  query.expected_output_tokens = request.expected_output_token_count();
  if (request.has_required_identity()) {
    query.required_identity = ToIdentity(request.required_identity());
  }
  query.required_features.assign(request.required_features().begin(),
                                 request.required_features().end());
  query.excluded_worker_ids.assign(request.excluded_worker_ids().begin(),
                                   request.excluded_worker_ids().end());
  query.priority = request.priority();
  query.routing_key = request.routing_key();
  return query;
}

ReplicaInfo ToReplicaInfo(const v1::Registration& registration) {
  const v1::ModelInfo& model = registration.model();
  ReplicaInfo info;
  info.worker_id = registration.worker_id();
  info.address = registration.address();
  info.epoch = registration.epoch();
  info.model = model.name();
  info.identity = ToIdentity(model.identity());
  info.context_length = model.context_length();
  info.vocabulary_size = model.vocabulary_size();
  info.block_size = model.block_size();
  info.block_count = model.block_count();
  info.max_running_count = model.max_running_count();
  info.features.assign(registration.features().begin(),
                       registration.features().end());
  info.takes_whole =
      std::find(registration.roles().begin(), registration.roles().end(),
                v1::TARGET_ROLE_WHOLE) != registration.roles().end();
  info.registration = std::make_shared<const v1::Registration>(registration);
  return info;
}

ReplicaLoad ToReplicaLoad(const v1::Load& load) {
  ReplicaLoad converted;
  converted.running_count = NotNegative(load.running_sequence_count());
  converted.waiting_count = NotNegative(load.waiting_sequence_count());
  converted.leased_blocks = NotNegative(load.leased_block_count());
  converted.cached_blocks = NotNegative(load.cached_block_count());
  converted.queued_prefill_tokens =
      NotNegative(load.queued_prefill_token_count());
  converted.decode_tokens_per_second = Speed(load.decode_tokens_per_second());
  converted.prefill_tokens_per_second = Speed(load.prefill_tokens_per_second());
  return converted;
}

absl::StatusOr<KvChange> ToKvChange(const v1::KvEvents& events) {
  const int64_t least = events.snapshot() ? 0 : 1;
  if (events.sequence_number() < least) {
    return FieldError("kv_events.sequence_number", StrCat("at least ", least),
                      StrCat(events.sequence_number()));
  }
  KvChange change;
  change.sequence_number = events.sequence_number();
  change.snapshot = events.snapshot();
  CARAVAN_ASSIGN_OR_RETURN(change.stored,
                           ToHashes("kv_events.stored", events.stored()));
  CARAVAN_ASSIGN_OR_RETURN(change.removed,
                           ToHashes("kv_events.removed", events.removed()));
  return change;
}

v1::Load ToProto(const ReplicaLoad& load, int32_t block_count) {
  v1::Load converted;
  converted.set_running_sequence_count(load.running_count);
  converted.set_waiting_sequence_count(load.waiting_count);
  converted.set_leased_block_count(load.leased_blocks);
  converted.set_cached_block_count(load.cached_blocks);
  converted.set_block_count(block_count);
  converted.set_queued_prefill_token_count(load.queued_prefill_tokens);
  converted.set_decode_tokens_per_second(load.decode_tokens_per_second);
  converted.set_prefill_tokens_per_second(load.prefill_tokens_per_second);
  return converted;
}

v1::WorkerState ToProto(ReplicaState state) {
  switch (state) {
    case ReplicaState::kReady:
      return v1::WORKER_STATE_READY;
    case ReplicaState::kSuspect:
      return v1::WORKER_STATE_SUSPECT;
    case ReplicaState::kDraining:
      return v1::WORKER_STATE_DRAINING;
    case ReplicaState::kBroken:
      return v1::WORKER_STATE_BROKEN;
  }
  return v1::WORKER_STATE_UNSPECIFIED;
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration converted;
  converted.set_seconds(
      absl::IDivDuration(duration, absl::Seconds(1), &duration));
  converted.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
  return converted;
}

absl::Status CheckHello(const v1::Hello& hello) {
  if (hello.least_revision() <= kGreatestProtocolRevision &&
      hello.greatest_revision() >= kLeastProtocolRevision) {
    return absl::OkStatus();
  }
  return MakeError(
      Reason::kProtocolMismatch,
      StrCat("protocol revisions must overlap [", kLeastProtocolRevision, ", ",
             kGreatestProtocolRevision, "]; got [", hello.least_revision(),
             ", ", hello.greatest_revision(), "] from ", hello.sender_id()),
      {{"least_revision", StrCat(hello.least_revision())},
       {"greatest_revision", StrCat(hello.greatest_revision())},
       {"sender_id", hello.sender_id()}});
}

}  // namespace caravan::router
