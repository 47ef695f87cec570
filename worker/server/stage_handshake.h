// How a chain of stages is formed: what the stage before says of the one that
// it calls, and what comes back from the chain's end.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_WORKER_SERVER_STAGE_HANDSHAKE_H_
#define CARAVAN_WORKER_SERVER_STAGE_HANDSHAKE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caravan/v1/stage.pb.h"
#include "worker/model/config.h"

namespace caravan::worker {

// A stage as its process knows it.
struct StageFacts {
  std::string worker_id;
  ModelConfig config;        // with the stage
  std::string model_digest;  // 32 bytes: ModelDescription::digest
  std::string numerics_class;
  std::string fingerprint;      // 32 bytes
  std::string tensor_listing;   // WeightsListing::Listing() of the stage
  int32_t block_count = 0;      // of its KV cache
  int32_t max_step_tokens = 0;  // that its arenas are made for
};

// What all stages together are.
struct ReplicaFacts {
  std::string weights_id;   // hex
  int32_t block_count = 0;  // the least of all
};

// The first message of a stream between two stages.
v1::Hello MakeStageHello(const StageFacts& facts, uint64_t epoch);

// Whether the peer speaks our protocol, has an epoch, and is of this build.
// Errors: kProtocolMismatch, kInvalidField, kIdentityMismatch.
absl::Status CheckStageHello(const v1::Hello& hello);

// What a stage takes the next one for. Precondition: not the last stage.
v1::StageOffer MakeOffer(const StageFacts& facts, int32_t depth);

// Whether that is what this stage is. Errors: kIdentityMismatch naming what
// differs with both values.
absl::Status CheckOffer(const StageFacts& facts, const v1::StageOffer& offer);

// What a stage answers for itself and those behind it, when they stand.
v1::StageFormed MakeFormed(const StageFacts& facts,
                           const v1::StageFormed& behind);

// Whether the answer has every stage behind this one, each with its layers.
// Errors: kIdentityMismatch.
absl::Status CheckFormed(const StageFacts& facts,
                         const v1::StageFormed& formed);

// First stage: what the replica is. Errors: those of CheckFormed and of joining
// the tensors, kInvalidField for a block count below 1.
absl::StatusOr<ReplicaFacts> JoinStages(const StageFacts& facts,
                                        const v1::StageFormed& formed);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_SERVER_STAGE_HANDSHAKE_H_
