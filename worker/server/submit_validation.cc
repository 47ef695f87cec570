#include "worker/server/submit_validation.h"

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "common/sampling/params.h"
#include "common/sampling/proto.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/server/worker_facts.h"

namespace caravan::worker {
namespace {

absl::Status CheckEpoch(const v1::Submit& submit, uint64_t epoch) {
  if (submit.epoch() == epoch) return absl::OkStatus();
  return MakeError(
      Reason::kStaleEpoch,
      StrCat("epoch must be ", epoch, "; got ", submit.epoch()),
      {{"epoch", StrCat(epoch)}, {"value", StrCat(submit.epoch())}});
}

absl::Status CheckName(std::string_view field, std::string_view value) {
  if (value.size() <= kMaxNameBytes) return absl::OkStatus();
  return FieldError(field, StrCat("at most ", kMaxNameBytes, " bytes"),
                    StrCat(value.size(), " bytes"));
}

absl::Status CheckNames(const v1::Submit& submit) {
  CARAVAN_RETURN_IF_ERROR(CheckName("request_id", submit.request_id()));
  CARAVAN_RETURN_IF_ERROR(
      CheckName("idempotency_key", submit.idempotency_key()));
  CARAVAN_RETURN_IF_ERROR(CheckName("tenant", submit.tenant()));
  CARAVAN_RETURN_IF_ERROR(CheckName("tenant_salt", submit.tenant_salt()));
  return CheckName("traceparent", submit.traceparent());
}

absl::Status CheckSupported(const v1::Submit& submit) {
  const std::vector<int> features(submit.required_features().begin(),
                                  submit.required_features().end());
  CARAVAN_RETURN_IF_ERROR(CheckFeatures(features));
  if (!submit.adapter().empty()) return UnsupportedError("adapter");
  if (!submit.response_format_json().empty()) {
    return UnsupportedError("response_format_json");
  }
  return absl::OkStatus();
}

absl::Status CheckRange(std::string_view field, int64_t value, int64_t least,
                        int64_t greatest) {
  if (least <= value && value <= greatest) return absl::OkStatus();
  return FieldError(field, StrCat("in [", least, ", ", greatest, "]"),
                    StrCat(value));
}

absl::Status CheckToken(std::string_view list, int index, int32_t id,
                        int32_t vocabulary_size) {
  if (0 <= id && id < vocabulary_size) return absl::OkStatus();
  return FieldError(StrCat(list, "[", index, "]"),
                    StrCat("in [0, ", vocabulary_size - 1, "]"), StrCat(id));
}

absl::Status PromptTooLong(int64_t length, const SubmitLimits& limits) {
  return MakeError(Reason::kPromptTooLong,
                   StrCat("prompt must be at most ", limits.context_length,
                          " tokens; got ", length),
                   {{"field", "prompt"},
                    {"limit", StrCat(limits.context_length)},
                    {"value", StrCat(length)}});
}

absl::Status CheckPromptLength(const v1::Submit& submit,
                               const SubmitLimits& limits) {
  int64_t length = 0;
  for (const v1::PromptPart& part : submit.prompt()) {
    if (part.kind_case() == v1::PromptPart::kEmbeddings) {
      return UnsupportedError("prompt.embeddings", "send token ids");
    }
    length += part.tokens().token_ids_size();
  }
  if (length == 0) {
    return FieldError("prompt", "at least 1 token", "0 tokens");
  }
  if (length > limits.context_length) return PromptTooLong(length, limits);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TokenId>> PromptIds(const v1::Submit& submit,
                                               const SubmitLimits& limits) {
  CARAVAN_RETURN_IF_ERROR(CheckPromptLength(submit, limits));
  std::vector<TokenId> ids;
  for (const v1::PromptPart& part : submit.prompt()) {
    for (const int32_t id : part.tokens().token_ids()) {
      CARAVAN_RETURN_IF_ERROR(CheckToken("prompt", static_cast<int>(ids.size()),
                                         id, limits.vocabulary_size));
      ids.push_back(id);
    }
  }
  return ids;
}

// The gateway fills what the worker would have to guess.
absl::Status CheckFilled(const v1::Submit& submit) {
  const v1::SamplingParams& sampling = submit.sampling();
  const std::pair<std::string_view, bool> fields[] = {
      {"sampling.temperature", sampling.has_temperature()},
      {"sampling.top_p", sampling.has_top_p()},
      {"sampling.top_k", sampling.has_top_k()},
      {"sampling.min_p", sampling.has_min_p()},
      {"sampling.repetition_penalty", sampling.has_repetition_penalty()},
      {"sampling.presence_penalty", sampling.has_presence_penalty()},
      {"sampling.frequency_penalty", sampling.has_frequency_penalty()},
      {"sampling.seed", sampling.has_seed()},
      {"stop.max_tokens", submit.stop().has_max_tokens()},
      {"stop.min_tokens", submit.stop().has_min_tokens()},
  };
  for (const auto& [field, present] : fields) {
    if (!present) return FieldError(field, "filled by the gateway", "nothing");
  }
  return absl::OkStatus();
}

absl::StatusOr<ChoiceStart> MakeChoice(const v1::SubmitChoice& choice,
                                       const sampling::StopCriteria& stop,
                                       const SubmitLimits& limits) {
  CARAVAN_RETURN_IF_ERROR(CheckRange("choices.index", choice.index(), 0,
                                     sampling::kMaxChoices - 1));
  const int done = choice.output_token_ids_size();
  if (done > 0 && done >= stop.max_tokens) {
    return FieldError("choices.output_token_ids",
                      StrCat("fewer than max_tokens = ", stop.max_tokens),
                      StrCat(done));
  }
  for (int i = 0; i < done; ++i) {
    CARAVAN_RETURN_IF_ERROR(CheckToken("choices.output_token_ids", i,
                                       choice.output_token_ids(i),
                                       limits.vocabulary_size));
  }
  return ChoiceStart{
      choice.index(),
      {choice.output_token_ids().begin(), choice.output_token_ids().end()}};
}

absl::StatusOr<std::vector<ChoiceStart>> MakeChoices(
    const v1::Submit& submit, const sampling::StopCriteria& stop,
    const SubmitLimits& limits) {
  CARAVAN_RETURN_IF_ERROR(
      CheckRange("choices", submit.choices_size(), 1, sampling::kMaxChoices));
  std::vector<ChoiceStart> choices;
  uint32_t seen = 0;  // bit set of indices
  for (const v1::SubmitChoice& choice : submit.choices()) {
    CARAVAN_ASSIGN_OR_RETURN(ChoiceStart start,
                             MakeChoice(choice, stop, limits));
    const uint32_t bit = 1u << start.index;
    if ((seen & bit) != 0) {
      return FieldError("choices.index", "unique", StrCat(start.index));
    }
    seen |= bit;
    choices.push_back(std::move(start));
  }
  return choices;
}

absl::StatusOr<absl::Time> Deadline(const v1::Submit& submit, absl::Time now) {
  if (!submit.has_time_left()) return absl::InfiniteFuture();
  const absl::Duration left = absl::Seconds(submit.time_left().seconds()) +
                              absl::Nanoseconds(submit.time_left().nanos());
  if (left > absl::ZeroDuration()) return now + left;
  return MakeError(Reason::kDeadlineExceeded,
                   StrCat("time_left must be positive; got ",
                          absl::ToDoubleSeconds(left), " s"),
                   {{"value", absl::FormatDuration(left)}});
}

std::vector<TokenId> EndIds(const sampling::StopCriteria& stop,
                            const SubmitLimits& limits) {
  std::vector<TokenId> ids;
  if (!stop.ignore_eos) ids = limits.eos_ids;
  ids.insert(ids.end(), stop.stop_token_ids.begin(), stop.stop_token_ids.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

absl::Status CheckParameters(const GroupRequest& group,
                             const SubmitLimits& limits) {
  CARAVAN_RETURN_IF_ERROR(CheckRange("priority", group.priority,
                                     -sampling::kMaxPriority,
                                     sampling::kMaxPriority));
  CARAVAN_RETURN_IF_ERROR(
      sampling::Validate(group.sampling, limits.vocabulary_size));
  const int32_t room =
      limits.context_length - static_cast<int32_t>(group.prompt->size());
  return sampling::Validate(group.stop, room, limits.vocabulary_size);
}

}  // namespace

absl::StatusOr<GroupRequest> MakeGroupRequest(const v1::Submit& submit,
                                              const SubmitLimits& limits,
                                              absl::Time now) {
  CARAVAN_RETURN_IF_ERROR(CheckEpoch(submit, limits.epoch));
  CARAVAN_RETURN_IF_ERROR(CheckNames(submit));
  CARAVAN_RETURN_IF_ERROR(CheckSupported(submit));
  CARAVAN_RETURN_IF_ERROR(CheckRange("attempt", submit.attempt(), 0, 1 << 20));
  CARAVAN_ASSIGN_OR_RETURN(std::vector<TokenId> prompt,
                           PromptIds(submit, limits));
  CARAVAN_RETURN_IF_ERROR(CheckFilled(submit));
  GroupRequest group;
  group.request_id = submit.request_id();
  group.priority = submit.priority();
  group.over_share = submit.over_share();
  group.prompt =
      std::make_shared<const std::vector<TokenId>>(std::move(prompt));
  group.sampling = sampling::FromProto(submit.sampling());
  group.stop = sampling::FromProto(submit.stop());
  CARAVAN_RETURN_IF_ERROR(CheckParameters(group, limits));
  CARAVAN_ASSIGN_OR_RETURN(group.choices,
                           MakeChoices(submit, group.stop, limits));
  CARAVAN_ASSIGN_OR_RETURN(group.deadline, Deadline(submit, now));
  group.end_ids = EndIds(group.stop, limits);
  group.tenant_salt = submit.tenant_salt();
  return group;
}

}  // namespace caravan::worker
