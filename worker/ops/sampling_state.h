// What the sampling op knows of a sequence: sent once when the sequence is
// added, then grown by each sampled token, in the ordered stream of commands
// of its shard.
#ifndef CARAVAN_WORKER_OPS_SAMPLING_STATE_H_
#define CARAVAN_WORKER_OPS_SAMPLING_STATE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/sampling/params.h"

namespace caravan::worker {

// Not thread-safe; owned by the runner.
class SamplingState {
 public:
  // `end_ids` are masked until `min_tokens` output tokens exist.
  SamplingState(sampling::SamplingParams params, int32_t choice,
                int32_t min_tokens, std::vector<int32_t> end_ids,
                std::span<const int32_t> prompt,
                std::span<const int32_t> output);

  // Counts a sampled token.
  void Append(int32_t token_id);

  const sampling::SamplingParams& params() const { return params_; }
  int32_t choice() const { return choice_; }
  int32_t min_tokens() const { return min_tokens_; }
  const std::vector<int32_t>& end_ids() const { return end_ids_; }

  // How often a token stands in the output; in the prompt or not.
  struct Seen {
    int32_t output_count = 0;
    bool in_prompt = false;
  };
  // Every token of prompt and output. Empty where no penalty needs it.
  const absl::flat_hash_map<int32_t, Seen>& seen() const { return seen_; }

 private:
  bool NeedsHistory() const;

  const sampling::SamplingParams params_;
  const int32_t choice_;
  const int32_t min_tokens_;
  const std::vector<int32_t> end_ids_;
  absl::flat_hash_map<int32_t, Seen> seen_;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_OPS_SAMPLING_STATE_H_
