#include "gateway/idempotency.h"

#include <cstring>
#include <utility>

#include "common/receipt/receipt.h"
#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::gateway {
namespace {

std::string ScopeOf(const GenerationRequest& request) {
  return StrCat(request.tenant.size(), ":", request.tenant,
                request.idempotency_key);
}

// So that a cursor of another request is told from one of this.
uint64_t TagOf(const GenerationRequest& request) {
  const std::string digest =
      receipt::Sha256(StrCat(ScopeOf(request), "\n", request.body_digest));
  uint64_t tag = 0;
  std::memcpy(&tag, digest.data(), sizeof(tag));
  return tag;
}

size_t ChoiceCount(const GenerationRequest& request) {
  return request.prompts.size() * static_cast<size_t>(request.n);
}

absl::Status CheckKey(const GenerationRequest& request) {
  if (request.idempotency_key.size() > kMaxIdempotencyKeyBytes) {
    return FieldError("idempotency_key",
                      StrCat("at most ", kMaxIdempotencyKeyBytes, " bytes"),
                      StrCat(request.idempotency_key.size()));
  }
  const bool fits =
      request.n >= 1 && ChoiceCount(request) <= size_t{kMaxCursorChoices};
  if (fits) return absl::OkStatus();
  return FieldError("n",
                    StrCat("such that prompts times n is in [1, ",
                           kMaxCursorChoices, "] with an idempotency key"),
                    StrCat(request.n));
}

absl::StatusOr<StreamCursor> CursorOf(const GenerationRequest& request) {
  StreamCursor cursor;
  cursor.request_tag = TagOf(request);
  if (request.resume_cursor.empty()) return cursor;
  CARAVAN_ASSIGN_OR_RETURN(
      StreamCursor given, DecodeCursor("Last-Event-ID", request.resume_cursor));
  if (given.request_tag != cursor.request_tag || !given.introduced ||
      given.choices.size() != ChoiceCount(request)) {
    return FieldError("Last-Event-ID",
                      "of an event of the same request and idempotency key",
                      "that of another");
  }
  return given;
}

}  // namespace

absl::StatusOr<std::shared_ptr<TokenStream>> IdempotencyStore::Open(
    GenerationRequest request, const StartGeneration& start) {
  CARAVAN_RETURN_IF_ERROR(CheckKey(request));
  CARAVAN_ASSIGN_OR_RETURN(StreamCursor cursor, CursorOf(request));
  absl::MutexLock lock(&mutex_);
  Evict();
  const std::string scope = ScopeOf(request);
  ForgetFailed(scope);
  const auto [it, is_new] = entries_.try_emplace(scope);
  Entry& entry = it->second;
  if (!is_new && entry.body_digest != request.body_digest) {
    return MakeError(
        Reason::kIdempotencyConflict,
        "the idempotency key was used with another body; use a new key",
        {{"field", "idempotency_key"}});
  }
  if (is_new) {
    entry.body_digest = request.body_digest;
    entry.recording = std::make_shared<Recording>(
        request.prompts.size(), ChoiceCount(request), *clock_);
    GenerationRequest started = request;
    if (cursor.introduced) {
      started.sampling.seed = cursor.seed;
      started.identity_tag = cursor.identity_tag;
    }
    const absl::Status status = start(std::move(started), entry.recording);
    if (!status.ok()) {
      entries_.erase(it);
      return status;
    }
  }
  return std::make_shared<RecordedStream>(entry.recording, std::move(request),
                                          std::move(cursor));
}

// Its readers know of the failure before Ended is called, and may be back.
void IdempotencyStore::ForgetFailed(const std::string& scope) {
  const auto it = entries_.find(scope);
  if (it == entries_.end() || it->second.recording->error().ok()) return;
  entries_.erase(it);
}

void IdempotencyStore::Ended(const std::shared_ptr<Recording>& recording) {
  absl::MutexLock lock(&mutex_);
  if (!recording->error().ok()) {
    absl::erase_if(entries_, [&](const auto& entry) {
      return entry.second.recording == recording;
    });
  }
  Evict();
}

bool IdempotencyStore::IsForsaken(const Recording& recording) const {
  return clock_->Now() - recording.unread_since() >= options_.linger;
}

void IdempotencyStore::Evict() {
  const absl::Time now = clock_->Now();
  if (now - last_evicted_ < absl::Seconds(1)) return;
  last_evicted_ = now;
  absl::erase_if(entries_, [&](const auto& entry) {
    return now - entry.second.recording->ended_at() >= options_.window;
  });
  int64_t bytes = 0;
  for (const auto& [scope, entry] : entries_) {
    if (entry.recording->ended()) bytes += entry.recording->memory_bytes();
  }
  while (bytes > options_.max_bytes) {
    auto oldest = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      if (!it->second.recording->ended()) continue;
      if (oldest == entries_.end() ||
          it->second.recording->ended_at() <
              oldest->second.recording->ended_at()) {
        oldest = it;
      }
    }
    if (oldest == entries_.end()) return;
    bytes -= oldest->second.recording->memory_bytes();
    entries_.erase(oldest);
  }
}

}  // namespace caravan::gateway
