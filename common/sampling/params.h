// Sampling parameters and stop criteria with every field filled, and the only
// place that knows their ranges. The gateway validates before work starts;
// the worker validates again what comes over the wire.
#ifndef CARAVAN_COMMON_SAMPLING_PARAMS_H_
#define CARAVAN_COMMON_SAMPLING_PARAMS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace caravan::sampling {

struct LogitBias {
  int32_t token_id = 0;
  float bias = 0;  // [-100, 100]
  bool operator==(const LogitBias&) const = default;
};

// Fields are explained in protos/caravan/v1/sampling.proto.
struct SamplingParams {
  float temperature = 1;         // [0, 2]; 0 is greedy
  float top_p = 1;               // (0, 1]
  int32_t top_k = 0;             // [0, vocabulary]; 0 keeps all
  float min_p = 0;               // [0, 1]
  float repetition_penalty = 1;  // (0, 2]
  float presence_penalty = 0;    // [-2, 2]
  float frequency_penalty = 0;   // [-2, 2]
  std::vector<LogitBias> logit_bias;
  uint64_t seed = 0;
  std::optional<int32_t> logprob_count;         // [0, 20]
  std::optional<int32_t> prompt_logprob_count;  // [0, 20]
  bool operator==(const SamplingParams&) const = default;
};

struct StopCriteria {
  int32_t max_tokens = 16;
  int32_t min_tokens = 0;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;
  bool operator==(const StopCriteria&) const = default;
};

// Limits of the two structs above.
inline constexpr int kMaxLogprobCount = 20;
inline constexpr int kMaxLogitBiasCount = 1024;
inline constexpr int kMaxStopTexts = 16;
inline constexpr int kMaxStopTextBytes = 1024;
inline constexpr int kMaxStopTokenIds = 64;
inline constexpr int kMaxChoices = 16;
inline constexpr int kMaxPriority = 100;

// Errors: kInvalidField naming the field, its range and the value (NaN and
// infinities too). `vocabulary_size` bounds ids and top_k.
absl::Status Validate(const SamplingParams& params, int32_t vocabulary_size);

// max_tokens must be in [0, max_output_tokens].
absl::Status Validate(const StopCriteria& stop, int32_t max_output_tokens,
                      int32_t vocabulary_size);

}  // namespace caravan::sampling

#endif  // CARAVAN_COMMON_SAMPLING_PARAMS_H_
