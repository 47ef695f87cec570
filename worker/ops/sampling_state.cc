#include "worker/ops/sampling_state.h"

#include <utility>

namespace caravan::worker {

SamplingState::SamplingState(sampling::SamplingParams params, int32_t choice,
                             int32_t min_tokens, std::vector<int32_t> end_ids,
                             std::span<const int32_t> prompt,
                             std::span<const int32_t> output)
    : params_(std::move(params)),
      choice_(choice),
      min_tokens_(min_tokens),
      end_ids_(std::move(end_ids)) {
  if (!NeedsHistory()) return;
  for (const int32_t id : prompt) seen_[id].in_prompt = true;
  for (const int32_t id : output) ++seen_[id].output_count;
}

void SamplingState::Append(int32_t token_id) {
  if (NeedsHistory()) ++seen_[token_id].output_count;
}

bool SamplingState::NeedsHistory() const {
  return params_.repetition_penalty != 1.0f ||
         params_.presence_penalty != 0.0f || params_.frequency_penalty != 0.0f;
}

}  // namespace caravan::worker
