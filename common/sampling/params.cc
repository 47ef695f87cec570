#include "common/sampling/params.h"

#include <cstddef>

#include "absl/container/flat_hash_set.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::sampling {
namespace {

// "[0, 2]" or "(0, 2]".
std::string Interval(double least, double most, bool open_below) {
  return StrCat("in ", open_below ? "(" : "[", least, ", ", most, "]");
}

absl::Status CheckReal(std::string_view field, float value, double least,
                       double most, bool open_below = false) {
  const bool above = open_below ? value > least : value >= least;
  if (above && value <= most) return absl::OkStatus();  // false for NaN
  return FieldError(field, Interval(least, most, open_below), StrCat(value));
}

absl::Status CheckInteger(std::string_view field, int64_t value, int64_t least,
                          int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return FieldError(field, StrCat("in [", least, ", ", most, "]"),
                    StrCat(value));
}

absl::Status CheckTokenId(std::string_view field, int32_t id,
                          int32_t vocabulary_size) {
  if (id >= 0 && id < vocabulary_size) return absl::OkStatus();
  return FieldError(field, StrCat("in [0, ", vocabulary_size, ")"), StrCat(id));
}

absl::Status CheckCount(std::string_view field, size_t count, size_t most) {
  if (count <= most) return absl::OkStatus();
  return FieldError(field, StrCat("at most ", most, " entries"), StrCat(count));
}

absl::Status CheckLogprobCount(std::string_view field,
                               const std::optional<int32_t>& count) {
  if (!count) return absl::OkStatus();
  return CheckInteger(field, *count, 0, kMaxLogprobCount);
}

absl::Status CheckBias(const std::vector<LogitBias>& bias,
                       int32_t vocabulary_size) {
  CARAVAN_RETURN_IF_ERROR(
      CheckCount("logit_bias", bias.size(), kMaxLogitBiasCount));
  absl::flat_hash_set<int32_t> seen;
  for (size_t i = 0; i < bias.size(); ++i) {
    const std::string field = StrCat("logit_bias[", i, "]");
    CARAVAN_RETURN_IF_ERROR(CheckTokenId(StrCat(field, ".token_id"),
                                         bias[i].token_id, vocabulary_size));
    CARAVAN_RETURN_IF_ERROR(
        CheckReal(StrCat(field, ".bias"), bias[i].bias, -100, 100));
    if (!seen.insert(bias[i].token_id).second) {
      return FieldError(StrCat(field, ".token_id"), "unique in the list",
                        StrCat(bias[i].token_id, " again"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStopTexts(const std::vector<std::string>& stop) {
  CARAVAN_RETURN_IF_ERROR(CheckCount("stop", stop.size(), kMaxStopTexts));
  for (size_t i = 0; i < stop.size(); ++i) {
    if (stop[i].empty() || stop[i].size() > size_t{kMaxStopTextBytes}) {
      return FieldError(StrCat("stop[", i, "]"),
                        StrCat("1 to ", kMaxStopTextBytes, " bytes long"),
                        StrCat(stop[i].size()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const SamplingParams& params, int32_t vocabulary_size) {
  CARAVAN_RETURN_IF_ERROR(CheckReal("temperature", params.temperature, 0, 2));
  CARAVAN_RETURN_IF_ERROR(
      CheckReal("top_p", params.top_p, 0, 1, /*open_below=*/true));
  CARAVAN_RETURN_IF_ERROR(
      CheckInteger("top_k", params.top_k, 0, vocabulary_size));
  CARAVAN_RETURN_IF_ERROR(CheckReal("min_p", params.min_p, 0, 1));
  CARAVAN_RETURN_IF_ERROR(CheckReal("repetition_penalty",
                                    params.repetition_penalty, 0, 2,
                                    /*open_below=*/true));
  CARAVAN_RETURN_IF_ERROR(
      CheckReal("presence_penalty", params.presence_penalty, -2, 2));
  CARAVAN_RETURN_IF_ERROR(
      CheckReal("frequency_penalty", params.frequency_penalty, -2, 2));
  CARAVAN_RETURN_IF_ERROR(CheckBias(params.logit_bias, vocabulary_size));
  CARAVAN_RETURN_IF_ERROR(
      CheckLogprobCount("logprob_count", params.logprob_count));
  return CheckLogprobCount("prompt_logprob_count", params.prompt_logprob_count);
}

absl::Status Validate(const StopCriteria& stop, int32_t max_output_tokens,
                      int32_t vocabulary_size) {
  CARAVAN_RETURN_IF_ERROR(
      CheckInteger("max_tokens", stop.max_tokens, 0, max_output_tokens));
  CARAVAN_RETURN_IF_ERROR(
      CheckInteger("min_tokens", stop.min_tokens, 0, stop.max_tokens));
  CARAVAN_RETURN_IF_ERROR(CheckStopTexts(stop.stop));
  CARAVAN_RETURN_IF_ERROR(CheckCount(
      "stop_token_ids", stop.stop_token_ids.size(), kMaxStopTokenIds));
  for (size_t i = 0; i < stop.stop_token_ids.size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(CheckTokenId(StrCat("stop_token_ids[", i, "]"),
                                         stop.stop_token_ids[i],
                                         vocabulary_size));
  }
  return absl::OkStatus();
}

}  // namespace caravan::sampling
