// What a step runs, and what it gave: plain data between the engine, which
// decides, and the runner, which computes.
#ifndef CARAVAN_WORKER_ENGINE_BATCH_PLAN_H_
#define CARAVAN_WORKER_ENGINE_BATCH_PLAN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/sampling/params.h"

namespace caravan::worker {

using BlockId = int32_t;
using SequenceId = int64_t;
using TokenId = int32_t;

// What a runner needs of a sequence once.
struct SequenceSpec {
  SequenceId id = 0;
  int32_t choice = 0;  // index within n; counter of the random numbers
  std::shared_ptr<const std::vector<TokenId>> prompt;  // the original request's
  std::vector<TokenId> output;  // produced before this spec was sent
  sampling::SamplingParams sampling;
  int32_t min_tokens = 0;
  std::vector<TokenId> end_ids;  // masked before min_tokens
};

// Tokens of one sequence in a step.
struct PlanRow {
  SequenceId sequence = 0;
  int32_t first_position = 0;
  std::vector<TokenId> tokens;  // at least one
  std::vector<BlockId> blocks;  // covers [0, first_position + tokens)
  // Keys and values of positions below are not written: they stand in shared
  // blocks already (a wholly cached prompt recomputes its last token).
  int32_t first_stored_position = 0;
  // The last token's logits are sampled into output position output_position.
  bool sample = false;
  int32_t output_position = 0;
  // Logprobs of the prompt tokens at positions first_position + 1 ... are
  // wanted, as far as the prompt reaches.
  bool score_prompt = false;
};

struct PlanBlockCopy {
  BlockId source = 0;
  BlockId target = 0;
};

struct BatchPlan {
  int64_t step = 0;
  std::vector<PlanBlockCopy> copies;  // before the rows, in order
  std::vector<PlanRow> rows;          // a sequence at most once

  bool empty() const { return rows.empty(); }
  int32_t token_count() const {
    int32_t count = 0;
    for (const PlanRow& row : rows) {
      count += static_cast<int32_t>(row.tokens.size());
    }
    return count;
  }
};

struct Candidate {
  TokenId token_id = 0;
  float logprob = 0;
  bool operator==(const Candidate&) const = default;
};

// A token with what was asked about it.
struct ScoredToken {
  TokenId token_id = 0;
  std::optional<float> logprob;  // where asked for
  int32_t rank = 0;              // from 1, where asked for
  std::vector<Candidate> candidates;
  bool operator==(const ScoredToken&) const = default;
};

struct RowResult {
  SequenceId sequence = 0;
  absl::Status status;                // kNumericFault: no token
  std::optional<ScoredToken> token;   // where the row sampled
  int32_t first_scored_position = 0;  // position of prompt_scores[0]
  std::vector<ScoredToken> prompt_scores;
};

struct StepResult {
  int64_t step = 0;
  std::vector<RowResult> rows;  // as in the plan
  absl::Duration compute_time;  // from start to end of the computation
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_ENGINE_BATCH_PLAN_H_
