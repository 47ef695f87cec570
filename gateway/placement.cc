#include "gateway/placement.h"

#include <algorithm>
#include <cstring>

#include "common/kv/block_hash.h"
#include "common/receipt/receipt.h"
#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::gateway {
namespace {

namespace asio = boost::asio;

v1::BlockHashChain ChainOf(const v1::ModelInfo& model,
                           const PlacementQuery& query) {
  kv::HashRootParts parts;
  parts.weights_id = model.identity().weights_id();
  parts.numerics_class = model.identity().numerics_class();
  parts.fingerprint = model.identity().fingerprint();
  parts.length_salt =
      kv::LengthSalt(query.prompt_tokens, model.unscaled_context_length());
  const kv::BlockHash root = kv::HashRoot(parts);
  v1::BlockHashChain chain;
  chain.set_root(root.ToBytes());
  for (const kv::BlockHash& hash : kv::HashChain(root, query.ids)) {
    chain.add_hashes(hash.ToBytes());
  }
  return chain;
}

bool IsExcluded(const PlacementQuery& query, const std::string& worker_id,
                uint64_t epoch) {
  return std::find(query.excluded.begin(), query.excluded.end(),
                   ReplicaLife{worker_id, epoch}) != query.excluded.end();
}

std::optional<v1::Target> FirstAllowed(const v1::PlaceResponse& response,
                                       const PlacementQuery& query) {
  for (const v1::Target& target : response.targets()) {
    if (target.role() != v1::TARGET_ROLE_WHOLE) continue;
    if (IsExcluded(query, target.worker_id(), target.epoch())) continue;
    return target;
  }
  return std::nullopt;
}

bool KnowsNobody(const absl::Status& status) {
  const Reason reason = ReasonOf(status);
  return reason == Reason::kNoReplica || reason == Reason::kNoReplicaOfClass ||
         reason == Reason::kModelNotFound;
}

absl::Status NobodyLeft(const PlacementQuery& query) {
  return query.required_identity
             ? MakeError(Reason::kNoReplicaOfClass,
                         "no other replica of the stream's class is left")
             : MakeError(Reason::kNoReplica, "no other replica is left");
}

v1::Target TargetOf(const v1::WorkerStatus& worker) {
  const v1::Registration& registration = worker.registration();
  v1::Target target;
  target.set_worker_id(registration.worker_id());
  target.set_address(registration.address());
  target.set_epoch(registration.epoch());
  target.set_role(v1::TARGET_ROLE_WHOLE);
  *target.mutable_model() = registration.model();
  return target;
}

}  // namespace

bool SameIdentity(const v1::ModelIdentity& a, const v1::ModelIdentity& b) {
  return a.weights_id() == b.weights_id() &&
         a.numerics_class() == b.numerics_class() &&
         a.fingerprint() == b.fingerprint();
}

uint64_t IdentityTag(const v1::ModelIdentity& identity) {
  const std::string digest = receipt::Sha256(
      StrCat(identity.weights_id().size(), ":", identity.weights_id(),
             identity.numerics_class().size(), ":", identity.numerics_class(),
             identity.fingerprint()));
  uint64_t tag = 0;
  std::memcpy(&tag, digest.data(), sizeof(tag));
  return tag;
}

v1::PlaceRequest MakePlaceRequest(const PlacementQuery& query) {
  const GenerationRequest& request = *query.request;
  v1::PlaceRequest place;
  place.set_request_id(request.request_id);
  place.set_model(query.model);
  for (const ModelPtr& model : query.identities) {
    const bool wanted =
        !query.required_identity ||
        SameIdentity(model->identity(), *query.required_identity);
    if (wanted) *place.add_chains() = ChainOf(*model, query);
  }
  place.set_prompt_token_count(static_cast<int32_t>(query.ids.size()));
  place.set_expected_output_token_count(query.expected_output_tokens);
  if (query.required_identity) {
    *place.mutable_required_identity() = *query.required_identity;
  }
  for (const v1::Feature feature : query.required_features) {
    place.add_required_features(feature);
  }
  for (const ReplicaLife& life : query.excluded) {
    place.add_excluded_worker_ids(life.worker_id);
  }
  place.set_priority(request.priority);
  place.set_tenant(request.tenant);
  place.set_routing_key(request.routing_key);
  return place;
}

std::optional<v1::Target> Placement::LastKnown(const PlacementQuery& query,
                                               bool sessions_only) const {
  std::optional<v1::Target> best;
  int32_t best_open = 0;
  for (const v1::WorkerStatus& worker :
       directory_->LastKnownWorkers(query.model)) {
    const v1::Target target = TargetOf(worker);
    if (IsExcluded(query, target.worker_id(), target.epoch())) continue;
    if (query.required_identity &&
        !SameIdentity(target.model().identity(), *query.required_identity)) {
      continue;
    }
    const auto session = workers_->Find(target.address());
    if (session ? !session->usable() : sessions_only) continue;
    const int32_t open = session ? session->open_count() : 0;
    if (!best || open < best_open) {
      best = target;
      best_open = open;
    }
  }
  return best;
}

asio::awaitable<absl::StatusOr<v1::Target>> Placement::Ask(
    const PlacementQuery& query, Patience patience) {
  v1::PlaceRequest place = MakePlaceRequest(query);
  absl::StatusOr<v1::PlaceResponse> response =
      co_await router_->Place(place, patience);
  const bool retry_without_exclusion = !response.ok() &&
                                       KnowsNobody(response.status()) &&
                                       !query.excluded.empty();
  if (retry_without_exclusion) {
    place.clear_excluded_worker_ids();  // a new epoch of one may be there
    response = co_await router_->Place(place, patience);
  }
  if (!response.ok()) co_return response.status();
  if (auto target = FirstAllowed(*response, query)) co_return *target;
  co_return NobodyLeft(query);
}

asio::awaitable<absl::StatusOr<v1::Target>> Placement::Find(
    PlacementQuery query, Patience patience) {
  Patience once;
  once.deadline = absl::InfinitePast();
  absl::StatusOr<v1::Target> target = co_await Ask(query, once);
  if (target.ok()) co_return target;
  const bool unreachable =
      ReasonOf(target.status()) == Reason::kRouterUnavailable;
  if (unreachable || KnowsNobody(target.status())) {
    const auto known = LastKnown(query, /*sessions_only=*/!unreachable);
    if (known) co_return *known;
  }
  if (!unreachable) co_return target;
  co_return co_await Ask(query, patience);
}

}  // namespace caravan::gateway
