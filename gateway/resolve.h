// Fills every field of a request from the client, the model, and the defaults,
// and checks what the model bounds.
#ifndef CARAVAN_GATEWAY_RESOLVE_H_
#define CARAVAN_GATEWAY_RESOLVE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/sampling/params.h"
#include "common/text/vocabulary.h"
#include "gateway/request.h"

namespace caravan::gateway {

// What a request needs to know of a model.
struct ModelFacts {
  std::string name;
  int32_t context_length = 0;
  int32_t vocabulary_size = 0;
  sampling::SamplingParams default_sampling;
  std::vector<TokenId> end_ids;
};

// The client's value, else the model's. `seed` where the client gave none.
sampling::SamplingParams ResolveSampling(
    const SamplingOverrides& overrides,
    const sampling::SamplingParams& model_defaults, uint64_t drawn_seed);

// Stop criteria for a prompt of `prompt_tokens`. Errors: kPromptTooLong with
// all numbers where prompt and output do not fit the context; kInvalidField.
absl::StatusOr<sampling::StopCriteria> ResolveStop(
    const GenerationRequest& request, const ModelFacts& model,
    int32_t prompt_tokens);

// What can be said before the prompt is encoded: n, priority, resumed choices,
// sampling and stop within their ranges.
absl::Status CheckRequest(const GenerationRequest& request,
                          const ModelFacts& model);

// Bytes that become tokens of the prompt, at least; 0 for ids.
int64_t TextBytes(const PromptInput& prompt);

// Refuses a text that cannot fit the context, however it is encoded, before
// anybody encodes it. Error: kPromptTooLong.
absl::Status CheckPromptText(std::string_view field, const PromptInput& prompt,
                             const text::Vocabulary& vocabulary,
                             const ModelFacts& model);

// Each id in the vocabulary, at least one. `field` names the prompt.
absl::Status CheckPromptIds(std::string_view field,
                            std::span<const TokenId> ids,
                            const ModelFacts& model);

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_RESOLVE_H_
