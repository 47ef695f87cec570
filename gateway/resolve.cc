#include "gateway/resolve.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::gateway {
namespace {

absl::Status TooLong(const ModelFacts& model, int32_t prompt_tokens,
                     int64_t output_tokens) {
  return MakeError(
      Reason::kPromptTooLong,
      StrCat("prompt and max_tokens must be at most ", model.context_length,
             " tokens together, the context of ", model.name, "; got ",
             prompt_tokens, " + ", output_tokens),
      {{"field", "max_tokens"},
       {"limit", StrCat(model.context_length)},
       {"prompt_tokens", StrCat(prompt_tokens)},
       {"max_tokens", StrCat(output_tokens)}});
}

absl::Status CheckInRange(std::string_view field, int64_t value, int64_t least,
                          int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return FieldError(field, StrCat("in [", least, ", ", most, "]"),
                    StrCat(value));
}

int32_t LongestToken(const text::Vocabulary& vocabulary) {
  size_t longest = 1;
  for (const text::TokenEntry& token : vocabulary.tokens) {
    longest = std::max(longest, token.bytes.size());
  }
  return static_cast<int32_t>(longest);
}

absl::Status CheckResumed(const GenerationRequest& request,
                          const ModelFacts& model) {
  std::set<int32_t> seen;
  for (size_t i = 0; i < request.resumed_choices.size(); ++i) {
    const ResumedChoice& choice = request.resumed_choices[i];
    const std::string field = StrCat("resumed_choices[", i, "]");
    CARAVAN_RETURN_IF_ERROR(
        CheckInRange(StrCat(field, ".index"), choice.index, 0, request.n - 1));
    if (!seen.insert(choice.index).second) {
      return FieldError(StrCat(field, ".index"), "unique",
                        StrCat(choice.index, " again"));
    }
    if (choice.output.empty()) continue;
    CARAVAN_RETURN_IF_ERROR(CheckPromptIds(StrCat(field, ".output_token_ids"),
                                           choice.output, model));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t TextBytes(const PromptInput& prompt) {
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    return static_cast<int64_t>(text->size());
  }
  if (const auto* infill = std::get_if<Infill>(&prompt)) {
    return static_cast<int64_t>(infill->prefix.size() + infill->suffix.size());
  }
  int64_t bytes = 0;
  if (const auto* chat = std::get_if<Conversation>(&prompt)) {
    for (const Message& message : chat->messages) {
      for (const std::string& text : message.content) {
        bytes += static_cast<int64_t>(text.size());
      }
    }
  }
  return bytes;
}

sampling::SamplingParams ResolveSampling(
    const SamplingOverrides& overrides,
    const sampling::SamplingParams& model_defaults, uint64_t drawn_seed) {
  sampling::SamplingParams params = model_defaults;
  const auto take = [](const auto& from, auto& to) {
    if (from) to = *from;
  };
  take(overrides.temperature, params.temperature);
  take(overrides.top_p, params.top_p);
  take(overrides.top_k, params.top_k);
  take(overrides.min_p, params.min_p);
  take(overrides.repetition_penalty, params.repetition_penalty);
  take(overrides.presence_penalty, params.presence_penalty);
  take(overrides.frequency_penalty, params.frequency_penalty);
  if (!overrides.logit_bias.empty()) params.logit_bias = overrides.logit_bias;
  params.seed = overrides.seed.value_or(drawn_seed);
  params.logprob_count = overrides.logprob_count;
  params.prompt_logprob_count = overrides.prompt_logprob_count;
  return params;
}

absl::StatusOr<sampling::StopCriteria> ResolveStop(
    const GenerationRequest& request, const ModelFacts& model,
    int32_t prompt_tokens) {
  const StopOverrides& from = request.stop;
  const int32_t room = model.context_length - prompt_tokens;
  if (from.max_tokens && *from.max_tokens > room) {
    return TooLong(model, prompt_tokens, *from.max_tokens);
  }
  if (room <= 0 && from.max_tokens != 0) {
    return TooLong(model, prompt_tokens, from.max_tokens.value_or(1));
  }
  sampling::StopCriteria stop;
  stop.max_tokens = from.max_tokens.value_or(
      std::min(request.default_max_tokens.value_or(room), room));
  stop.min_tokens = from.min_tokens.value_or(0);
  stop.stop = from.stop;
  stop.stop_token_ids = from.stop_token_ids;
  stop.ignore_eos = from.ignore_eos;
  stop.include_stop_str_in_output = from.include_stop_str_in_output;
  CARAVAN_RETURN_IF_ERROR(
      sampling::Validate(stop, std::max(room, 0), model.vocabulary_size));
  return stop;
}

absl::Status CheckRequest(const GenerationRequest& request,
                          const ModelFacts& model) {
  CARAVAN_RETURN_IF_ERROR(
      CheckInRange("n", request.n, 1, sampling::kMaxChoices));
  CARAVAN_RETURN_IF_ERROR(CheckInRange("priority", request.priority,
                                       -sampling::kMaxPriority,
                                       sampling::kMaxPriority));
  CARAVAN_RETURN_IF_ERROR(CheckResumed(request, model));
  CARAVAN_RETURN_IF_ERROR(sampling::Validate(
      ResolveSampling(request.sampling, model.default_sampling, /*seed=*/0),
      model.vocabulary_size));
  if (request.stop.max_tokens) {
    CARAVAN_RETURN_IF_ERROR(CheckInRange("max_tokens", *request.stop.max_tokens,
                                         0, model.context_length));
  }
  // The prompt's length is not known yet.
  return ResolveStop(request, model, /*prompt_tokens=*/0).status();
}

absl::Status CheckPromptText(std::string_view field, const PromptInput& prompt,
                             const text::Vocabulary& vocabulary,
                             const ModelFacts& model) {
  const int64_t bytes = TextBytes(prompt);
  if (bytes <= model.context_length) return absl::OkStatus();
  const int32_t longest_token_bytes = LongestToken(vocabulary);
  const int64_t limit = int64_t{model.context_length} * longest_token_bytes;
  if (bytes <= limit) return absl::OkStatus();
  return MakeError(Reason::kPromptTooLong,
                   StrCat(field, " must fit the context of ", model.name, ", ",
                          model.context_length, " tokens of at most ",
                          longest_token_bytes, " bytes; got ", bytes, " bytes"),
                   {{"field", std::string(field)},
                    {"limit", StrCat(limit)},
                    {"value", StrCat(bytes)}});
}

absl::Status CheckPromptIds(std::string_view field,
                            std::span<const TokenId> ids,
                            const ModelFacts& model) {
  if (ids.empty()) return FieldError(field, "at least one token", "none");
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= model.vocabulary_size) {
      return FieldError(StrCat(field, "[", i, "]"),
                        StrCat("in [0, ", model.vocabulary_size, ")"),
                        StrCat(ids[i]));
    }
  }
  return absl::OkStatus();
}

}  // namespace caravan::gateway
