#include "worker/server/stage_handshake.h"

#include <algorithm>
#include <string_view>

#include "common/build_info.h"
#include "common/kv/block_hash.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/model/hashing.h"
#include "worker/server/worker_facts.h"
#include "worker/server/worker_metrics.h"

namespace caravan::worker {
namespace {

absl::Status Same(std::string_view what, std::string_view ours,
                  std::string_view theirs) {
  if (ours == theirs) return absl::OkStatus();
  return MakeError(Reason::kIdentityMismatch,
                   StrCat(what, " of the stages of a replica must be ", ours,
                          ", this stage's; got ", theirs),
                   {{"field", std::string(what)},
                    {"limit", std::string(ours)},
                    {"value", std::string(theirs)}});
}

absl::Status Same(std::string_view what, int64_t ours, int64_t theirs) {
  return Same(what, StrCat(ours), StrCat(theirs));
}

std::string Text(const LayerRange& layers) {
  return StrCat("[", layers.begin, ", ", layers.end, ")");
}

LayerRange RangeOf(int64_t first, int64_t count) {
  return {static_cast<int32_t>(first), static_cast<int32_t>(first + count)};
}

}  // namespace

v1::Hello MakeStageHello(const StageFacts& facts, uint64_t epoch) {
  WorkerFacts worker;
  worker.worker_id = facts.worker_id;
  worker.epoch = epoch;
  return MakeHello(worker);
}

absl::Status CheckStageHello(const v1::Hello& hello) {
  CARAVAN_RETURN_IF_ERROR(CheckHello(hello));
  CARAVAN_RETURN_IF_ERROR(Same("the build", BuildId(), hello.build()));
  if (hello.epoch() != 0) return absl::OkStatus();
  return FieldError("hello.epoch", "that of a chain", "0");
}

v1::StageOffer MakeOffer(const StageFacts& facts, int32_t depth) {
  const Stage next = {facts.config.stage.index + 1, facts.config.stage.count};
  const LayerRange layers = facts.config.LayersOf(next);
  v1::StageOffer offer;
  offer.set_stage_count(next.count);
  offer.set_stage_index(next.index);
  offer.set_first_layer(layers.begin);
  offer.set_layer_count(layers.size());
  offer.set_model_digest(facts.model_digest);
  offer.set_numerics_class(facts.numerics_class);
  offer.set_fingerprint(facts.fingerprint);
  offer.set_block_size(kv::kBlockTokens);
  offer.set_max_step_token_count(facts.max_step_tokens);
  offer.set_depth(depth);
  return offer;
}

absl::Status CheckOffer(const StageFacts& facts, const v1::StageOffer& offer) {
  const Stage& stage = facts.config.stage;
  CARAVAN_RETURN_IF_ERROR(Same("the number", stage.count, offer.stage_count()));
  CARAVAN_RETURN_IF_ERROR(Same("the index", stage.index, offer.stage_index()));
  CARAVAN_RETURN_IF_ERROR(
      Same("the layers", Text(facts.config.stage_layers()),
           Text(RangeOf(offer.first_layer(), offer.layer_count()))));
  CARAVAN_RETURN_IF_ERROR(Same("the model", HexText(facts.model_digest),
                               HexText(offer.model_digest())));
  CARAVAN_RETURN_IF_ERROR(
      Same("the class", facts.numerics_class, offer.numerics_class()));
  CARAVAN_RETURN_IF_ERROR(Same("the fingerprint", HexText(facts.fingerprint),
                               HexText(offer.fingerprint())));
  CARAVAN_RETURN_IF_ERROR(
      Same("the block size", kv::kBlockTokens, offer.block_size()));
  if (offer.depth() < 1) {
    return FieldError("offer.depth", "at least 1", StrCat(offer.depth()));
  }
  if (offer.max_step_token_count() <= facts.max_step_tokens) {
    return absl::OkStatus();
  }
  return Same("--max-step-tokens", facts.max_step_tokens,
              offer.max_step_token_count());
}

v1::StageFormed MakeFormed(const StageFacts& facts,
                           const v1::StageFormed& behind) {
  v1::StageFormed formed;
  v1::StageMember* const member = formed.add_members();
  const LayerRange layers = facts.config.stage_layers();
  member->set_stage_index(facts.config.stage.index);
  member->set_first_layer(layers.begin);
  member->set_layer_count(layers.size());
  member->set_block_count(facts.block_count);
  member->set_tensor_listing(facts.tensor_listing);
  member->set_sender_id(facts.worker_id);
  formed.MergeFrom(behind);
  return formed;
}

absl::Status CheckFormed(const StageFacts& facts,
                         const v1::StageFormed& formed) {
  const Stage& stage = facts.config.stage;
  CARAVAN_RETURN_IF_ERROR(Same("the number behind this one",
                               stage.count - stage.index - 1,
                               formed.members_size()));
  int32_t index = stage.index;
  for (const v1::StageMember& member : formed.members()) {
    ++index;
    CARAVAN_RETURN_IF_ERROR(Same("the index", index, member.stage_index()));
    CARAVAN_RETURN_IF_ERROR(
        Same("the layers", Text(facts.config.LayersOf({index, stage.count})),
             Text(RangeOf(member.first_layer(), member.layer_count()))));
    if (member.block_count() < 1) {
      return FieldError("formed.members.block_count", "at least 1",
                        StrCat(member.block_count()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ReplicaFacts> JoinStages(const StageFacts& facts,
                                        const v1::StageFormed& formed) {
  CARAVAN_RETURN_IF_ERROR(CheckFormed(facts, formed));
  WeightsListing listing;
  CARAVAN_RETURN_IF_ERROR(listing.Join(facts.tensor_listing));
  ReplicaFacts replica;
  replica.block_count = facts.block_count;
  for (const v1::StageMember& member : formed.members()) {
    CARAVAN_RETURN_IF_ERROR(listing.Join(member.tensor_listing()));
    replica.block_count = std::min(replica.block_count, member.block_count());
  }
  replica.weights_id = listing.Id();
  return replica;
}

}  // namespace caravan::worker
