#include "worker/shard/step_batch.h"

#include <span>
#include <string_view>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker {
namespace {

absl::Status CheckIds(std::string_view field, std::span<const TokenId> ids,
                      int32_t vocab_size) {
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocab_size) {
      return FieldError(field, StrCat("in [0, ", vocab_size, ")"), StrCat(id));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSpec(const SequenceSpec& spec, int32_t vocab_size) {
  CARAVAN_RETURN_IF_ERROR(CheckIds("prompt", *spec.prompt, vocab_size));
  CARAVAN_RETURN_IF_ERROR(CheckIds("output", spec.output, vocab_size));
  CARAVAN_RETURN_IF_ERROR(CheckIds("stop_token_ids", spec.end_ids, vocab_size));
  for (const sampling::LogitBias& entry : spec.sampling.logit_bias) {
    CARAVAN_RETURN_IF_ERROR(
        CheckIds("logit_bias", {&entry.token_id, 1}, vocab_size));
  }
  return absl::OkStatus();
}

absl::Status CheckBlocks(const PlanRow& row) {
  const size_t needed =
      (row.first_position + row.tokens.size() + kBlockSlots - 1) / kBlockSlots;
  if (row.first_position >= 0 && row.blocks.size() >= needed) {
    return absl::OkStatus();
  }
  return MakeError(
      Reason::kInternal,
      StrCat("blocks of sequence ", row.sequence, " must be at least ", needed,
             "; got ", row.blocks.size()));
}

int64_t SlotOf(const PlanRow& row, int32_t position) {
  if (position < row.first_stored_position) return -1;
  return int64_t{row.blocks[position / kBlockSlots]} * kBlockSlots +
         position % kBlockSlots;
}

void AddTokens(const PlanRow& row, int32_t prompt_length, StepBatch& batch) {
  const int32_t count = static_cast<int32_t>(row.tokens.size());
  batch.rows.push_back({static_cast<int32_t>(batch.ids.size()), count,
                        row.first_position, row.blocks});
  for (int32_t i = 0; i < count; ++i) {
    const int32_t position = row.first_position + i;
    batch.ids.push_back(row.tokens[i]);
    batch.positions.push_back(position);
    batch.prompt_lengths.push_back(prompt_length);
    batch.slots.push_back(SlotOf(row, position));
  }
}

// Requests for the row that was added last.
void AddRequests(const PlanRow& row, int32_t plan_row,
                 const RunnerSequence& sequence, StepBatch& batch) {
  const AttentionRow& added = batch.rows.back();
  const std::vector<TokenId>& prompt = *sequence.prompt;
  for (int32_t i = 0; row.score_prompt && i < added.token_count; ++i) {
    const size_t next = static_cast<size_t>(row.first_position) + i + 1;
    if (next >= prompt.size()) break;
    batch.requests.push_back(
        {added.first_token + i, plan_row, /*sample=*/false, prompt[next]});
  }
  if (row.sample) {
    batch.requests.push_back({added.first_token + added.token_count - 1,
                              plan_row, /*sample=*/true, /*scored_id=*/0});
  }
}

}  // namespace

RunnerSequence::RunnerSequence(SequenceSpec spec, int32_t vocab_size)
    : prompt(spec.prompt),
      prompt_candidates(spec.sampling.prompt_logprob_count.value_or(0)),
      fault(CheckSpec(spec, vocab_size)) {
  state = std::make_unique<SamplingState>(
      std::move(spec.sampling), spec.choice, spec.min_tokens,
      std::move(spec.end_ids), *prompt, spec.output);
}

absl::StatusOr<StepBatch> MakeStepBatch(const BatchPlan& plan,
                                        const RunnerSequences& sequences) {
  StepBatch batch;
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const PlanRow& row = plan.rows[i];
    const auto found = sequences.find(row.sequence);
    if (found == sequences.end()) {
      return MakeError(Reason::kInternal,
                       StrCat("sequence ", row.sequence, " was not added"));
    }
    if (!found->second.fault.ok() || row.tokens.empty()) continue;
    CARAVAN_RETURN_IF_ERROR(CheckBlocks(row));
    AddTokens(row, found->second.prompt_length(), batch);
    AddRequests(row, static_cast<int32_t>(i), found->second, batch);
  }
  return batch;
}

}  // namespace caravan::worker
