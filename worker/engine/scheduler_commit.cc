// Scheduler::Commit: what a step gave becomes part of its sequences.
#include <algorithm>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/engine/scheduler.h"

namespace caravan::worker {

absl::StatusOr<StepReport> Scheduler::Commit(StepResult result) {
  const int64_t expected = launched_.empty() ? 0 : launched_.front().step;
  if (expected != result.step || launched_.empty() ||
      launched_.front().rows.size() != result.rows.size()) {
    return MakeError(
        Reason::kInternal,
        StrCat("the runner's result must be step ", expected, "; got step ",
               result.step, " with ", result.rows.size(), " rows"));
  }
  const LaunchedPlan plan = std::move(launched_.front());
  launched_.pop_front();
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(CheckRow(plan.rows[i], result.rows[i]));
    CommitRow(plan.rows[i], std::move(result.rows[i]));
  }
  EraseEnded();
  report_.step = plan.step;
  report_.compute_time = result.compute_time;
  step_time_.Observe({.prefill_tokens = plan.counters.prefill_tokens,
                      .decode_tokens = plan.counters.decode_tokens},
                     result.compute_time);
  StepCounters& counters = report_.counters;
  counters.rows = plan.counters.rows;
  counters.decode_tokens = plan.counters.decode_tokens;
  counters.prefill_tokens = plan.counters.prefill_tokens;
  counters.prefill_rows = plan.counters.prefill_rows;
  counters.copied_blocks = plan.counters.copied_blocks;
  return TakeReport();
}

// Whether the result answers the row: a runner that breaks this is broken.
absl::Status Scheduler::CheckRow(const LaunchedRow& row,
                                 const RowResult& result) const {
  if (result.sequence != row.sequence->id) {
    return MakeError(Reason::kInternal,
                     StrCat("the runner's row must be of sequence ",
                            row.sequence->id, "; got ", result.sequence));
  }
  if (result.status.ok() && row.sampled && !result.token) {
    return MakeError(
        Reason::kInternal,
        StrCat("the runner sampled no token for sequence ", result.sequence));
  }
  return absl::OkStatus();
}

void Scheduler::CommitRow(const LaunchedRow& row, RowResult result) {
  Sequence& sequence = *row.sequence;
  --sequence.rows_in_flight;
  if (row.sampled) sequence.sampling_in_flight = false;
  if (sequence.state == SequenceState::kEnded) ++report_.counters.dropped_rows;
  if (!sequence.group->ended) CommitResult(row, std::move(result));
  if (sequence.rows_in_flight == 0) Leave(sequence);
}

// A choice that was cancelled has no tokens any more, but its siblings may
// stand on the prompt that it computed, and need its scores.
void Scheduler::CommitResult(const LaunchedRow& row, RowResult result) {
  Sequence& sequence = *row.sequence;
  if (!result.status.ok()) {
    for (const BlockId block : sequence.blocks.blocks()) index_.Forget(block);
    FailGroup(*sequence.group, result.status);
    return;
  }
  const bool ended = sequence.state == SequenceState::kEnded;
  CommitBlocks(sequence, row.end);
  CommitPrompt(sequence, result);
  if (!ended) CountWork(row);
  if (row.sampled && !ended) CommitToken(sequence, *std::move(result.token));
}

void Scheduler::CountWork(const LaunchedRow& row) {
  SequenceWork& work = row.sequence->work;
  (row.decodes ? work.decoded : work.prefilled) += row.count;
  if (row.sampled) ++work.generated;
}

// Positions below `end` stand: full blocks can be found from now on.
void Scheduler::CommitBlocks(Sequence& sequence, int32_t end) {
  sequence.committed = std::max(sequence.committed, end);
  if (!options_.prefix_cache) return;
  const int32_t full = sequence.committed / kv::kBlockTokens;
  const auto hashes = sequence.Hashes(full);
  for (int32_t& i = sequence.indexed; i < full; ++i) {
    const int32_t first = i * kv::kBlockTokens;
    index_.Insert(i == 0 ? sequence.group->root : hashes[i - 1], hashes[i],
                  sequence.Tokens(first, first + kv::kBlockTokens),
                  sequence.blocks.blocks()[i]);
  }
}

// Reports new scores, and, once, that the prompt stands.
void Scheduler::CommitPrompt(Sequence& sequence, RowResult& result) {
  Group& group = *sequence.group;
  PromptEvent event{.group = group.request.id,
                    .cached_token_count = group.cached_token_count,
                    .first_scored_position = group.scored + 1,
                    .scores = {}};
  for (size_t i = 0; i < result.prompt_scores.size(); ++i) {
    const int32_t position =
        result.first_scored_position + static_cast<int32_t>(i);
    if (position != group.scored + 1) continue;  // reported before it parked
    group.scored = position;
    event.scores.push_back(std::move(result.prompt_scores[i]));
  }
  const bool stands =
      !group.prompt_reported && sequence.committed >= group.prompt_size();
  if (!stands && event.scores.empty()) return;
  report_.prompts.push_back(std::move(event));
  if (!stands) return;
  group.prompt_reported = true;
  if (group.output_limit > 0) return;
  for (const auto& other : group.sequences) {
    if (other->state == SequenceState::kEnded) continue;
    FinishChoice(*other, ChoiceEnd::kLength, std::nullopt);
  }
}

void Scheduler::CommitToken(Sequence& sequence, ScoredToken token) {
  sequence.output.push_back(token.token_id);
  report_.tokens.push_back(
      {.group = sequence.group->request.id,
       .choice = sequence.choice,
       .position = static_cast<int32_t>(sequence.output.size()) - 1,
       .token = std::move(token)});
  EndIfComplete(sequence);
}

// The last row in flight of a sequence was collected.
void Scheduler::Leave(Sequence& sequence) {
  if (std::erase(leaving_, &sequence) == 0) return;
  if (sequence.state == SequenceState::kParking) StartWaiting(sequence);
  GiveBack(sequence);
}

}  // namespace caravan::worker
