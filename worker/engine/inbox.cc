#include "worker/engine/inbox.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "worker/engine/sequence.h"

namespace caravan::worker {

absl::Status Inbox::Submit(GroupRequest request) {
  CARAVAN_RETURN_IF_ERROR(CheckShape(request));
  CARAVAN_RETURN_IF_ERROR(CheckFits(request));
  const auto count = static_cast<int32_t>(request.choices.size());
  absl::MutexLock lock(&mutex_);
  CARAVAN_RETURN_IF_ERROR(closed_);
  const int32_t waiting = sequences_here_ + sequences_taken_;
  if (waiting + count > options_.max_waiting) {
    return WithRetryAfter(
        MakeError(Reason::kQueueFull,
                  StrCat("the queue must have at most ", options_.max_waiting,
                         " sequences; got ", waiting + count),
                  {{"limit", StrCat(options_.max_waiting)},
                   {"value", StrCat(waiting + count)}}),
        retry_after_);
  }
  if (!alive_.insert(request.id).second) {
    return FieldError("id", "new", StrCat(request.id, " again"));
  }
  sequences_here_ += count;
  groups_.push_back(std::move(request));
  return absl::OkStatus();
}

// What the engine's own invariants need of a request.
absl::Status Inbox::CheckShape(const GroupRequest& request) const {
  if (request.prompt == nullptr || request.prompt->empty()) {
    return FieldError("prompt", "at least 1 token long", "0");
  }
  if (request.choices.empty()) {
    return FieldError("choices", "at least 1", "0");
  }
  if (request.stop.max_tokens < 0) {
    return FieldError("max_tokens", "at least 0",
                      StrCat(request.stop.max_tokens));
  }
  const auto most = static_cast<size_t>(request.stop.max_tokens);
  absl::flat_hash_set<int32_t> indices;
  for (const ChoiceStart& choice : request.choices) {
    if (choice.index < 0 || !indices.insert(choice.index).second) {
      return FieldError("choices.index", "at least 0 and unique",
                        StrCat(choice.index));
    }
    if (choice.output.size() > most) {
      return FieldError("choices.output_token_ids",
                        StrCat("at most max_tokens (", most, ") long"),
                        StrCat(choice.output.size()));
    }
  }
  return absl::OkStatus();
}

// Whether the request fits into the context, and one choice of it into the KV
// blocks when it runs alone.
absl::Status Inbox::CheckFits(const GroupRequest& request) const {
  const auto prompt = static_cast<int64_t>(request.prompt->size());
  // The last position can be read but not continued.
  const int64_t most =
      options_.context_length - (request.stop.max_tokens > 0 ? 1 : 0);
  if (prompt > most) {
    return MakeError(
        Reason::kPromptTooLong,
        StrCat("prompt must be at most ", most, " tokens; got ", prompt),
        {{"field", "prompt"},
         {"limit", StrCat(most)},
         {"value", StrCat(prompt)}});
  }
  const int64_t output = std::min<int64_t>(request.stop.max_tokens,
                                           options_.context_length - prompt);
  for (const ChoiceStart& choice : request.choices) {
    if (static_cast<int64_t>(choice.output.size()) > output) {
      return FieldError("choices.output_token_ids",
                        StrCat("at most ", output, " long after this prompt"),
                        StrCat(choice.output.size()));
    }
  }
  // The last token's keys and values are never needed.
  const auto positions =
      static_cast<int32_t>(prompt + std::max<int64_t>(0, output - 1));
  const int32_t blocks = BlocksFor(positions);
  if (blocks <= options_.block_count) return absl::OkStatus();
  return MakeError(
      Reason::kKvExhausted,
      StrCat("prompt and max_tokens must need at most ", options_.block_count,
             " KV blocks of ", kv::kBlockTokens, " tokens; got ", blocks),
      {{"limit", StrCat(options_.block_count)}, {"value", StrCat(blocks)}});
}

void Inbox::Cancel(GroupId id) {
  absl::MutexLock lock(&mutex_);
  if (!alive_.contains(id)) return;
  const auto it = std::ranges::find(groups_, id, &GroupRequest::id);
  if (it == groups_.end()) {
    cancels_.push_back({.group = id, .choices = {}});
    return;
  }
  sequences_here_ -= static_cast<int32_t>(it->choices.size());
  groups_.erase(it);
  alive_.erase(id);
}

void Inbox::CancelChoices(GroupId id, std::vector<int32_t> choices) {
  if (choices.empty()) return;
  absl::MutexLock lock(&mutex_);
  if (!alive_.contains(id)) return;
  const auto it = std::ranges::find(groups_, id, &GroupRequest::id);
  if (it == groups_.end()) {
    cancels_.push_back({.group = id, .choices = std::move(choices)});
    return;
  }
  const size_t erased = std::erase_if(it->choices, [&](const ChoiceStart& c) {
    return std::ranges::find(choices, c.index) != choices.end();
  });
  sequences_here_ -= static_cast<int32_t>(erased);
  if (!it->choices.empty()) return;
  groups_.erase(it);
  alive_.erase(id);
}

void Inbox::Close(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  closed_ = std::move(status);
}

void Inbox::Stop() {
  absl::MutexLock lock(&mutex_);
  stop_ = true;
}

void Inbox::Count(const std::vector<GroupRequest>& groups, Unreported& sum) {
  for (const GroupRequest& group : groups) {
    // Choices share the prompt's computation.
    auto tokens = static_cast<int64_t>(group.prompt->size());
    for (const ChoiceStart& choice : group.choices) {
      ++sum.sequences;
      tokens += static_cast<int64_t>(choice.output.size());
    }
    sum.tokens += WaitFor(group, tokens);
  }
}

Inbox::Unreported Inbox::unreported() const {
  absl::MutexLock lock(&mutex_);
  Unreported sum = taken_;
  Count(groups_, sum);
  return sum;
}

bool Inbox::AnyAlive() const {
  absl::MutexLock lock(&mutex_);
  return !alive_.empty();
}

bool Inbox::AwaitWork() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &Inbox::HasWork));
  return !stop_;
}

bool Inbox::stopped() const {
  absl::MutexLock lock(&mutex_);
  return stop_;
}

std::vector<GroupRequest> Inbox::TakeGroups() {
  absl::MutexLock lock(&mutex_);
  Count(groups_, taken_);
  sequences_taken_ += std::exchange(sequences_here_, 0);
  return std::exchange(groups_, {});
}

std::vector<Cancellation> Inbox::TakeCancels() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(cancels_, {});
}

void Inbox::Update(const std::vector<GroupId>& ended, int32_t queued_sequences,
                   absl::Duration retry_after) {
  absl::MutexLock lock(&mutex_);
  for (const GroupId id : ended) alive_.erase(id);
  sequences_taken_ = queued_sequences;
  taken_ = Unreported();
  retry_after_ = retry_after;
}

}  // namespace caravan::worker
