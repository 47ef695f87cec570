#include "gateway/prompt_group.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::gateway {
namespace {

// A decoder's state after this many tokens, one of them with text, does not
// depend on what was before: an incomplete character has at most 3 bytes.
constexpr size_t kDecoderContext = 16;

int32_t CountCharacters(std::string_view text) {
  return static_cast<int32_t>(std::count_if(
      text.begin(), text.end(),
      [](char byte) { return (static_cast<uint8_t>(byte) & 0xC0) != 0x80; }));
}

// The shortest end of the prompt that gives the decoder its state.
std::span<const TokenId> DecoderContext(const text::Vocabulary& vocabulary,
                                        std::span<const TokenId> ids) {
  bool has_text = false;
  size_t size = 0;
  while (size < ids.size() && (size < kDecoderContext || !has_text)) {
    const TokenId id = ids[ids.size() - 1 - size];
    ++size;
    if (id >= vocabulary.size()) continue;
    const text::TokenEntry& token = vocabulary.tokens[id];
    has_text = has_text ||
               (token.kind == text::TokenKind::kNormal && !token.bytes.empty());
  }
  return ids.last(size);
}

}  // namespace

PromptText ReadPrompt(const text::Vocabulary& vocabulary,
                      std::span<const TokenId> ids, bool skip_special_tokens,
                      bool echo) {
  PromptText prompt(vocabulary, skip_special_tokens);
  int32_t characters = 0;
  for (const TokenId id : echo ? ids : DecoderContext(vocabulary, ids)) {
    const std::string piece = prompt.decoder.Append(id);
    if (!echo) continue;
    prompt.text_offsets.push_back(characters);
    characters += CountCharacters(piece);
    prompt.text += piece;
  }
  return prompt;
}

PromptGroup::PromptGroup(Init init, const text::Vocabulary& vocabulary,
                         const ChoiceOptions& options)
    : init_(std::move(init)),
      options_(options),
      prompt_text_(ReadPrompt(vocabulary, init_.ids, init_.skip_special_tokens,
                              init_.wants_text)) {
  choices_.reserve(init_.n);
  const int32_t offset = CountCharacters(prompt_text_.text);
  for (int32_t i = 0; i < init_.n; ++i) {
    choices_.emplace_back(init_.index, i, options, prompt_text_.decoder,
                          offset);
  }
}

absl::Status PromptGroup::Resume(int32_t choice,
                                 std::span<const TokenId> output) {
  ChoiceStream& stream = choices_[choice];
  for (size_t i = 0; i < output.size(); ++i) {
    TokenPiece piece;
    piece.id = output[i];
    CARAVAN_RETURN_IF_ERROR(
        stream.Append(static_cast<int32_t>(i), std::move(piece)).status());
  }
  // The earlier call gave these to the client, but for a text that was held.
  if (!stream.finished()) stream.TakeDelta();
  return absl::OkStatus();
}

void PromptGroup::FinishSpent() {
  for (ChoiceStream& choice : choices_) {
    const std::vector<TokenId>& output = choice.output();
    if (choice.finished() || output.empty()) continue;
    if (options_.end_ids.contains(output.back())) {
      choice.Finish(FinishReason::kStop);
    } else if (static_cast<int32_t>(output.size()) >= init_.stop.max_tokens) {
      choice.Finish(FinishReason::kLength);
    }
  }
}

absl::StatusOr<ChoiceStream*> PromptGroup::ChoiceOf(int32_t choice) {
  if (choice >= 0 && choice < static_cast<int32_t>(choices_.size())) {
    return &choices_[choice];
  }
  return MakeError(Reason::kInternal,
                   StrCat("choice must be in [0, ", choices_.size(),
                          "); the worker sent ", choice));
}

absl::StatusOr<int32_t> PromptGroup::Apply(HandleEvents events) {
  if (!Hears(events.handle)) return 0;
  if (warmup_ && events.handle == warmup_->handle) {
    warmup_->over |= !events.finishes.empty() || !events.error.ok();
    return 0;
  }
  should_move = should_move || events.should_move;
  queued = (queued || events.queued) && !events.started;
  if (events.cached_token_count && !computed_) {
    cached_token_count_ = *events.cached_token_count;
  }
  computed_ = computed_ || events.cached_token_count.has_value();
  CARAVAN_RETURN_IF_ERROR(ApplyScores(std::move(events.scores)));
  CARAVAN_ASSIGN_OR_RETURN(const int32_t tokens,
                           ApplyTokens(std::move(events.tokens)));
  CARAVAN_RETURN_IF_ERROR(ApplyFinishes(events.finishes));
  if (!events.error.ok()) {
    failure = std::move(events.error);
    worker_died = events.worker_died;
    session_ = nullptr;  // nothing is left to be cancelled
  }
  return tokens;
}

absl::Status PromptGroup::ApplyScores(std::vector<WorkerScore> scores) {
  for (WorkerScore& score : scores) {
    const auto next = static_cast<int32_t>(scores_.size()) + 1;
    if (score.position < next) continue;  // known from an earlier placement
    if (score.position > next) {
      return MakeError(Reason::kInternal,
                       StrCat("prompt logprob of position ", score.position,
                              " came while the next is ", next));
    }
    scores_.push_back(std::move(score.piece));
  }
  return absl::OkStatus();
}

absl::StatusOr<int32_t> PromptGroup::ApplyTokens(
    std::vector<WorkerToken> tokens) {
  int32_t count = 0;
  for (WorkerToken& token : tokens) {
    CARAVAN_ASSIGN_OR_RETURN(ChoiceStream* const choice,
                             ChoiceOf(token.choice));
    CARAVAN_ASSIGN_OR_RETURN(
        const bool is_new,
        choice->Append(token.position, std::move(token.piece)));
    count += is_new ? 1 : 0;
  }
  if (count > 0) {
    computed_ = true;
    attempts = 0;
    deaths = 0;
    excluded.clear();
  }
  return count;
}

absl::Status PromptGroup::ApplyFinishes(
    const std::vector<WorkerFinish>& finishes) {
  for (const WorkerFinish& finish : finishes) {
    CARAVAN_ASSIGN_OR_RETURN(ChoiceStream* const choice,
                             ChoiceOf(finish.choice));
    const auto size = static_cast<int32_t>(choice->output().size());
    if (!choice->finished() && finish.output_token_count != size) {
      return MakeError(Reason::kInternal,
                       StrCat("choice ", finish.choice, " ended after ",
                              finish.output_token_count, " tokens, of which ",
                              size, " came"));
    }
    if (!has_scores()) {
      return MakeError(Reason::kInternal,
                       StrCat("of ", init_.ids.size() - 1, " prompt logprobs ",
                              scores_.size(), " came"));
    }
    computed_ = true;
    running_[finish.choice] = false;
    choice->Finish(finish.reason);
  }
  return absl::OkStatus();
}

bool PromptGroup::complete() const {
  return std::all_of(choices_.begin(), choices_.end(),
                     [](const ChoiceStream& c) { return c.finished(); });
}

bool PromptGroup::ready() const {
  return complete() || (computed_ && has_scores());
}

bool PromptGroup::has_scores() const {
  return !init_.wants_scores || scores_.size() + 1 >= init_.ids.size();
}

bool PromptGroup::has_output() const { return output_token_count() > 0; }

int32_t PromptGroup::output_token_count() const {
  return std::accumulate(choices_.begin(), choices_.end(), 0,
                         [](int32_t sum, const ChoiceStream& c) {
                           return sum + static_cast<int32_t>(c.output().size());
                         });
}

void PromptGroup::TakeEvents(StreamEvents& events) {
  if (!ready()) return;
  if (!ready_sent_) {
    ready_sent_ = true;
    PromptReady& prompt = events.prompts.emplace_back();
    prompt.prompt = init_.index;
    prompt.token_ids = init_.ids;
    prompt.scores = std::move(scores_);
    prompt.text = std::move(prompt_text_.text);
    prompt.text_offsets = std::move(prompt_text_.text_offsets);
    // Counted, no longer kept.
    if (init_.wants_scores) scores_.resize(init_.ids.size() - 1);
  }
  for (ChoiceStream& choice : choices_) {
    if (choice.has_delta()) events.deltas.push_back(choice.TakeDelta());
  }
}

void PromptGroup::Describe(PlacementQuery& query) const {
  query.prompt_tokens = static_cast<int32_t>(init_.ids.size());
  query.ids = init_.ids;
  std::span<const TokenId> longest;
  int32_t expected = 0;
  bool resumes = false;
  for (const ChoiceStream& choice : choices_) {
    if (choice.finished()) continue;
    const auto size = static_cast<int32_t>(choice.output().size());
    expected += std::max(init_.stop.max_tokens - size, 0);
    resumes = resumes || size > 0;
    if (choice.output().size() > longest.size()) longest = choice.output();
  }
  query.ids.insert(query.ids.end(), longest.begin(), longest.end());
  query.expected_output_tokens = expected;
  if (choices_.size() > 1) {
    query.required_features.push_back(v1::FEATURE_MULTIPLE_CHOICES);
  }
  if (resumes) query.required_features.push_back(v1::FEATURE_RESUME);
  if (init_.wants_scores && !ready_sent_) {
    query.required_features.push_back(v1::FEATURE_PROMPT_LOGPROBS);
  }
  query.excluded = excluded;
}

void PromptGroup::Describe(v1::Submit& submit) const {
  submit.set_attempt(attempts);
  auto& ids = *submit.add_prompt()->mutable_tokens()->mutable_token_ids();
  ids.Add(init_.ids.begin(), init_.ids.end());
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (choices_[i].finished()) continue;
    v1::SubmitChoice& choice = *submit.add_choices();
    choice.set_index(static_cast<int32_t>(i));
    const std::vector<TokenId>& output = choices_[i].output();
    choice.mutable_output_token_ids()->Add(output.begin(), output.end());
  }
  // Scores that the client has are not computed again.
  if (ready_sent_) submit.mutable_sampling()->clear_prompt_logprob_count();
}

void PromptGroup::Attach(std::shared_ptr<WorkerSession> session,
                         uint64_t handle, const v1::Target& target) {
  EndWarmup();
  session_ = std::move(session);
  handle_ = handle;
  running_.clear();
  for (const ChoiceStream& choice : choices_) {
    running_.push_back(!choice.finished());
  }
  replica_ = {target.worker_id(), target.epoch()};
  failure = absl::OkStatus();
  worker_died = false;
  should_move = false;
  queued = false;  // unless the worker says so
}

void PromptGroup::BeginWarmup(Warmup warmup) {
  EndWarmup();
  warmup_ = std::move(warmup);
}

void PromptGroup::EndWarmup() {
  if (warmup_ && !warmup_->over) warmup_->session->Cancel(warmup_->handle);
  warmup_.reset();
}

std::optional<v1::Target> PromptGroup::TakeWarmTarget(absl::Time now) {
  if (!warmup_ || !(warmup_->over || now >= warmup_->give_up)) {
    return std::nullopt;
  }
  std::optional<v1::Target> target = std::move(warmup_->target);
  EndWarmup();
  return target;
}

void PromptGroup::Detach() {
  EndWarmup();
  if (session_ == nullptr) return;
  session_->Cancel(handle_);
  session_ = nullptr;
}

void PromptGroup::EndFinished() {
  if (!attached()) return;
  if (complete()) {
    Detach();
    return;
  }
  std::vector<int32_t> ended;
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (!running_[i] || !choices_[i].finished()) continue;
    running_[i] = false;
    ended.push_back(static_cast<int32_t>(i));
  }
  if (!ended.empty()) session_->CancelChoices(handle_, ended);
}

}  // namespace caravan::gateway
