#include "gateway/stream/recording.h"

#include <algorithm>
#include <utility>

namespace caravan::gateway {
namespace {

// About what a token takes beside its text.
constexpr int64_t kTokenBytes = sizeof(TokenPiece);

}  // namespace

Recording::Recording(size_t prompt_count, size_t choice_count,
                     const Clock& clock)
    : clock_(clock),
      prompt_count_(prompt_count),
      choices_(choice_count),
      unread_since_(clock.Now()) {}

// --- The generation's side ---------------------------------------------------

void Recording::AddDelta(ChoiceDelta delta) {
  const size_t n = choices_.size() / prompt_count_;
  Choice& choice = choices_[static_cast<size_t>(delta.prompt) * n +
                            static_cast<size_t>(delta.choice)];
  for (TokenPiece& token : delta.tokens) {
    memory_bytes_ +=
        kTokenBytes +
        static_cast<int64_t>(token.candidates.size() * sizeof(Candidate));
    choice.tokens.push_back(std::move(token));
  }
  memory_bytes_ += static_cast<int64_t>(delta.text.size());
  choice.text += delta.text;
  if (delta.finish) choice.finish = delta.finish;
  if (delta.stop_text) choice.stop_text = std::move(delta.stop_text);
  if (delta.stop_token_id) choice.stop_token_id = delta.stop_token_id;
}

void Recording::Append(StreamEvents events) {
  {
    absl::MutexLock lock(&mutex_);
    if (events.started) started_ = std::move(events.started);
    for (PromptReady& prompt : events.prompts) {
      memory_bytes_ += static_cast<int64_t>(
          prompt.token_ids.size() * sizeof(TokenId) + prompt.text.size() +
          prompt.scores.size() * sizeof(TokenPiece));
      prompts_.push_back(std::move(prompt));
    }
    for (ChoiceDelta& delta : events.deltas) AddDelta(std::move(delta));
    if (events.finished) finished_ = std::move(events.finished);
  }
  WakeReaders();
}

void Recording::End(absl::Status status) {
  {
    absl::MutexLock lock(&mutex_);
    end_ = std::move(status);
    ended_at_ = clock_.Now();
  }
  WakeReaders();
}

void Recording::WakeReaders() {
  std::vector<std::shared_ptr<Inbox>> readers;
  {
    absl::MutexLock lock(&mutex_);
    readers = readers_;
  }
  for (const auto& reader : readers) reader->Admit();
}

// --- The readers' side -------------------------------------------------------

std::optional<ChoiceDelta> Recording::ReadChoice(size_t index,
                                                 ChoiceCursor& cursor) const {
  const Choice& choice = choices_[index];
  const size_t n = choices_.size() / prompt_count_;
  ChoiceDelta delta;
  delta.prompt = static_cast<int32_t>(index / n);
  delta.choice = static_cast<int32_t>(index % n);
  delta.first_position = cursor.tokens;
  const auto tokens = static_cast<int32_t>(choice.tokens.size());
  const auto text_bytes = static_cast<int64_t>(choice.text.size());
  if (tokens > cursor.tokens || text_bytes > cursor.text_bytes) {
    delta.tokens.assign(choice.tokens.begin() + std::min(cursor.tokens, tokens),
                        choice.tokens.end());
    delta.text = choice.text.substr(
        static_cast<size_t>(std::min(cursor.text_bytes, text_bytes)));
    cursor.tokens = std::max(cursor.tokens, tokens);
    cursor.text_bytes = std::max(cursor.text_bytes, text_bytes);
    return delta;
  }
  if (!choice.finish || cursor.finished) return std::nullopt;
  delta.finish = choice.finish;
  delta.stop_text = choice.stop_text;
  delta.stop_token_id = choice.stop_token_id;
  cursor.finished = true;
  return delta;
}

std::optional<StreamEvents> Recording::Read(StreamCursor& cursor) const {
  absl::MutexLock lock(&mutex_);
  StreamEvents events;
  if (!cursor.introduced) {
    if (!started_ || prompts_.size() < prompt_count_) return std::nullopt;
    events.started = started_;
    events.prompts = prompts_;
    cursor.introduced = true;
    cursor.seed = started_->seed;
    cursor.identity_tag = started_->identity_tag;
    cursor.choices.resize(choices_.size());
    return events;
  }
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (auto delta = ReadChoice(i, cursor.choices[i])) {
      events.deltas.push_back(*std::move(delta));
      return events;
    }
  }
  if (!finished_) return std::nullopt;
  events.finished = finished_;
  return events;
}

absl::Status Recording::error() const {
  absl::MutexLock lock(&mutex_);
  return end_.value_or(absl::OkStatus());
}

bool Recording::ended() const {
  absl::MutexLock lock(&mutex_);
  return end_.has_value();
}

absl::Time Recording::ended_at() const {
  absl::MutexLock lock(&mutex_);
  return ended_at_;
}

int64_t Recording::memory_bytes() const {
  absl::MutexLock lock(&mutex_);
  return memory_bytes_;
}

void Recording::Attach(std::shared_ptr<Inbox> reader) {
  absl::MutexLock lock(&mutex_);
  readers_.push_back(std::move(reader));
  unread_since_ = absl::InfiniteFuture();
}

void Recording::Detach(const std::shared_ptr<Inbox>& reader) {
  absl::MutexLock lock(&mutex_);
  std::erase(readers_, reader);
  if (readers_.empty()) unread_since_ = clock_.Now();
}

absl::Time Recording::unread_since() const {
  absl::MutexLock lock(&mutex_);
  return unread_since_;
}

RecordedStream::RecordedStream(std::shared_ptr<Recording> recording,
                               GenerationRequest request, StreamCursor cursor)
    : recording_(std::move(recording)),
      request_(std::move(request)),
      inbox_(std::make_shared<Inbox>(InboxOptions())),
      cursor_(std::move(cursor)),
      was_introduced_(cursor_.introduced) {
  recording_->Attach(inbox_);
}

RecordedStream::~RecordedStream() { recording_->Detach(inbox_); }

boost::asio::awaitable<absl::StatusOr<StreamEvents>> RecordedStream::Next() {
  for (;;) {
    if (const absl::Status gone = inbox_->cancelled(); !gone.ok()) {
      co_return gone;
    }
    // The error first: events that came before it are read below.
    const absl::Status error = recording_->error();
    StreamCursor beginning;
    std::optional<StreamEvents> events =
        recording_->Read(was_introduced_ ? beginning : cursor_);
    if (events) {
      if (std::exchange(was_introduced_, false)) events->repeated = true;
      co_return *std::move(events);
    }
    if (!error.ok()) co_return error;
    (void)co_await inbox_->Wait();
  }
}

}  // namespace caravan::gateway
