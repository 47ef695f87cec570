// A sequence (one choice) and its group (the choices of one prompt): plain
// data that Scheduler::Plan and Scheduler::Commit change, and what follows
// from it.
#ifndef CARAVAN_WORKER_ENGINE_SEQUENCE_H_
#define CARAVAN_WORKER_ENGINE_SEQUENCE_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "common/kv/block_hash.h"
#include "worker/engine/batch_plan.h"
#include "worker/engine/engine.h"
#include "worker/kv/block_pool.h"

namespace caravan::worker {

// Blocks that hold `positions` tokens.
inline int32_t BlocksFor(int32_t positions) {
  return (positions + kv::kBlockTokens - 1) / kv::kBlockTokens;
}

// What may be parked for what: the higher priority comes before the lower,
// and within one whoever is over its share comes last.
struct RankClass {
  int32_t priority = 0;
  bool over_share = false;

  bool operator==(const RankClass&) const = default;
  bool Before(const RankClass& other) const {
    return priority != other.priority ? priority > other.priority
                                      : over_share < other.over_share;
  }
};

// Who runs first: the class before, then who came first.
struct Rank {
  RankClass rank_class;
  SequenceId id = 0;

  // Below everything of its class: only later classes rank below it.
  static Rank LastOf(RankClass rank_class) {
    return {rank_class, std::numeric_limits<SequenceId>::max()};
  }
  bool Before(const Rank& other) const {
    return rank_class == other.rank_class ? id < other.id
                                          : rank_class.Before(other.rank_class);
  }
};

enum class SequenceState {
  kWaiting,  // no blocks; in the waiting set
  kRunning,  // in the running set
  kParking,  // parks when its rows in flight are collected
  kEnded,    // gives its blocks back when its rows in flight are collected
};

struct Group;

struct Sequence {
  SequenceId id = 0;
  int32_t choice = 0;
  Group* group = nullptr;
  SequenceState state = SequenceState::kWaiting;
  std::vector<TokenId> output;
  bool known_to_runner = false;
  bool parked = false;   // waits not for the first time
  bool scoring = false;  // its rows score the prompt

  // Positions from 0, below which keys and values ...
  BlockLease blocks;
  int32_t planned = 0;      // ... will stand when every launched row has run
  int32_t committed = 0;    // ... stand
  int32_t shared = 0;       // ... stood when it was admitted; never written
  int32_t prefill_end = 0;  // what was known when it was admitted
  int32_t indexed = 0;      // full blocks that were offered to the index
  std::vector<kv::BlockHash> hashes;  // of its first full blocks
  // Tokens to compute for its prefill, as it looked when it was queued.
  int32_t expected_prefill = 0;
  SequenceWork work;

  int32_t rows_in_flight = 0;
  bool sampling_in_flight = false;
  int64_t last_step = 0;            // the last plan with a row of it ...
  int32_t planned_before_last = 0;  // ... and `planned` before that

  Rank rank() const;
  // Prompt and output tokens.
  int32_t known() const;
  // Ids at positions [first, end).
  std::vector<TokenId> Tokens(int32_t first, int32_t end) const;
  // Whether its next row is one token behind a sampled one.
  bool decoding() const { return planned >= prefill_end; }
  // Whether its output may still grow.
  bool WantsToken() const;
  // Positions that stand before plan `step` runs: what its other rows may use.
  int32_t PlannedBefore(int64_t step) const {
    return last_step == step ? planned_before_last : planned;
  }
  // Hashes of its first `count` full blocks.
  std::span<const kv::BlockHash> Hashes(int32_t count);
};

struct Group {
  GroupRequest request;
  kv::BlockHash root;
  int32_t output_limit = 0;  // max_tokens, or what the context leaves
  std::vector<std::unique_ptr<Sequence>> sequences;
  bool admitted = false;           // a choice of it ran
  bool told_queued = false;        // the sink knows that it waits
  int32_t cached_token_count = 0;  // of the prompt, when it was admitted first
  bool prompt_reported = false;
  int32_t scored = 0;  // prompt scores were reported up to this position
  bool ended = false;

  int32_t prompt_size() const {
    return static_cast<int32_t>(request.prompt->size());
  }
  // Whether scores of the prompt are wanted and not all reported.
  bool NeedsScores() const {
    return request.sampling.prompt_logprob_count.has_value() &&
           scored < prompt_size() - 1;
  }
};

inline Rank Sequence::rank() const {
  return {{group->request.priority, group->request.over_share}, id};
}

inline int32_t Sequence::known() const {
  return group->prompt_size() + static_cast<int32_t>(output.size());
}

inline bool Sequence::WantsToken() const {
  return static_cast<int32_t>(output.size()) < group->output_limit;
}

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_ENGINE_SEQUENCE_H_
