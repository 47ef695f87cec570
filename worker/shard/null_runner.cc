#include "worker/shard/null_runner.h"

#include <algorithm>
#include <utility>

#include "common/status/errors.h"
#include "common/strings.h"
#include "worker/ops/canonical_math.h"

namespace caravan::worker {

void NullRunner::AddSequence(SequenceSpec spec) {
  const SequenceId id = spec.id;
  sequences_.insert_or_assign(id, std::move(spec));
}

void NullRunner::DropSequence(SequenceId id) { sequences_.erase(id); }

absl::Status NullRunner::Launch(BatchPlan plan) {
  plans_.push_back(std::move(plan));
  return absl::OkStatus();
}

absl::StatusOr<StepResult> NullRunner::Collect() {
  if (plans_.empty()) {
    return MakeError(Reason::kInternal, "no plan is in flight");
  }
  const BatchPlan plan = std::move(plans_.front());
  plans_.pop_front();
  StepResult result;
  result.step = plan.step;
  for (const PlanRow& row : plan.rows) result.rows.push_back(Answer(row));
  return result;
}

RowResult NullRunner::Answer(const PlanRow& row) const {
  RowResult result;
  result.sequence = row.sequence;
  result.first_scored_position = row.first_position + 1;
  const auto found = sequences_.find(row.sequence);
  if (found == sequences_.end()) {
    result.status = MakeError(
        Reason::kInternal, StrCat("sequence ", row.sequence, " was not added"));
    return result;
  }
  const SequenceSpec& spec = found->second;
  const size_t end =
      std::min(spec.prompt->size(), row.first_position + row.tokens.size() + 1);
  for (size_t p = row.first_position + 1; row.score_prompt && p < end; ++p) {
    result.prompt_scores.push_back(
        Score((*spec.prompt)[p], /*with_logprob=*/true,
              spec.sampling.prompt_logprob_count.value_or(0)));
  }
  if (row.sample) {
    result.token = Score(TokenAt(spec, row.output_position),
                         spec.sampling.logprob_count.has_value(),
                         spec.sampling.logprob_count.value_or(0));
  }
  return result;
}

ScoredToken NullRunner::Score(TokenId id, bool with_logprob,
                              int32_t candidates) const {
  ScoredToken token;
  token.token_id = id;
  if (!with_logprob) return token;
  token.logprob = -Log(static_cast<float>(vocab_size_));
  token.rank = 1;
  for (TokenId i = 0; i < std::min(candidates, vocab_size_); ++i) {
    token.candidates.push_back({i, *token.logprob});
  }
  return token;
}

TokenId NullRunner::TokenAt(const SequenceSpec& spec,
                            int32_t output_position) const {
  const auto ends = [&spec](TokenId id) {
    return std::find(spec.end_ids.begin(), spec.end_ids.end(), id) !=
           spec.end_ids.end();
  };
  TokenId id = output_position % vocab_size_;
  for (int32_t tries = 0; tries < vocab_size_ && ends(id); ++tries) {
    id = (id + 1) % vocab_size_;
  }
  return id;
}

}  // namespace caravan::worker
