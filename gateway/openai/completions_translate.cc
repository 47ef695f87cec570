#include "gateway/openai/completions_translate.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/sampling/params.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "gateway/openai/generation_fields.h"
#include "gateway/openai/json_reader.h"
#include "gateway/openai/tools_translate.h"

namespace caravan::gateway::openai {
namespace {

// OpenAI's default for completions.
constexpr int32_t kDefaultMaxTokens = 16;

constexpr std::string_view kPromptForms =
    "a string, an array of strings, an array of token ids, or an array of "
    "such arrays";

absl::Status ReadPrompt(const std::string& field, const Json& value,
                        PromptInput& prompt) {
  if (value.is_string()) {
    prompt = value.get<std::string>();
    return absl::OkStatus();
  }
  if (!value.is_array()) return TypeError(field, kPromptForms, value);
  if (value.empty()) return FieldError(field, "at least one token id", "none");
  CARAVAN_ASSIGN_OR_RETURN(prompt, AsTokenIds(field, value));
  return absl::OkStatus();
}

// One prompt, or an array of prompts.
absl::Status ReadPrompts(ObjectReader& reader, GenerationRequest& request) {
  const Json* value = reader.Find("prompt");
  if (value == nullptr) return FieldError("prompt", "given", "nothing");
  const bool several =
      value->is_array() && (value->empty() || !value->front().is_number());
  if (!several) {
    return ReadPrompt("prompt", *value, request.prompts.emplace_back());
  }
  if (value->empty() || value->size() > kMaxPrompts) {
    return FieldError("prompt", StrCat("1 to ", kMaxPrompts, " prompts"),
                      StrCat(value->size()));
  }
  for (size_t i = 0; i < value->size(); ++i) {
    CARAVAN_RETURN_IF_ERROR(ReadPrompt(StrCat("prompt[", i, "]"), (*value)[i],
                                       request.prompts.emplace_back()));
  }
  return absl::OkStatus();
}

// `logprobs` counts candidates; with `echo` it holds for the prompt too.
absl::Status ReadLogprobs(ObjectReader& reader, GenerationRequest& request) {
  const Json* value = reader.Find("logprobs");
  if (value == nullptr) return absl::OkStatus();
  CARAVAN_ASSIGN_OR_RETURN(
      const int64_t count,
      AsInteger("logprobs", *value, 0, sampling::kMaxLogprobCount));
  request.sampling.logprob_count = static_cast<int32_t>(count);
  if (request.echo) {
    request.sampling.prompt_logprob_count = static_cast<int32_t>(count);
  }
  return absl::OkStatus();
}

absl::Status ReadBestOf(ObjectReader& reader, int32_t n) {
  std::optional<int32_t> best_of;
  CARAVAN_RETURN_IF_ERROR(reader.Read("best_of", best_of));
  if (!best_of || *best_of == n) return absl::OkStatus();
  return UnsupportedError("best_of", StrCat("use n = ", n, " or leave it out"));
}

absl::StatusOr<bool> ReadSuffixFirst(ObjectReader& reader) {
  std::string order = "psm";
  CARAVAN_RETURN_IF_ERROR(reader.Read("infill_order", order));
  if (order == "psm" || order == "spm") return order == "spm";
  return FieldError("infill_order", "\"psm\" or \"spm\"", Excerpt(Json(order)));
}

// `suffix` makes every prompt the text before a gap. An empty one is none.
absl::Status ReadSuffix(ObjectReader& reader, GenerationRequest& request) {
  std::string suffix;
  CARAVAN_RETURN_IF_ERROR(reader.Read("suffix", suffix));
  CARAVAN_ASSIGN_OR_RETURN(const bool suffix_first, ReadSuffixFirst(reader));
  if (suffix.empty()) return absl::OkStatus();
  if (request.echo) {
    return UnsupportedError("echo", "leave it out where there is a suffix");
  }
  for (PromptInput& prompt : request.prompts) {
    auto* const text = std::get_if<std::string>(&prompt);
    if (text == nullptr) {
      return FieldError("suffix", "given with a prompt that is text",
                        "token ids");
    }
    prompt = Infill{std::move(*text), suffix, suffix_first};
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GenerationRequest> TranslateCompletion(std::string_view body) {
  CARAVAN_ASSIGN_OR_RETURN(const Json json, ParseObject(body));
  ObjectReader reader(json, "");
  GenerationRequest request;
  request.endpoint = Endpoint::kCompletions;
  request.default_max_tokens = kDefaultMaxTokens;
  CARAVAN_RETURN_IF_ERROR(ReadPrompts(reader, request));
  CARAVAN_RETURN_IF_ERROR(ReadSharedFields(reader, request));
  CARAVAN_RETURN_IF_ERROR(reader.Read("echo", request.echo));
  CARAVAN_RETURN_IF_ERROR(ReadLogprobs(reader, request));
  CARAVAN_RETURN_IF_ERROR(ReadBestOf(reader, request.n));
  CARAVAN_RETURN_IF_ERROR(ReadSuffix(reader, request));
  CARAVAN_RETURN_IF_ERROR(RefuseTools(reader));
  CARAVAN_RETURN_IF_ERROR(ReadNeutralFields(reader));
  CARAVAN_RETURN_IF_ERROR(reader.RefuseUnknown());
  return request;
}

}  // namespace caravan::gateway::openai
