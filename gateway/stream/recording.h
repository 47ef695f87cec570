// What a generation has given so far, for readers that come, go and come back
// (idempotency). The generation writes, any number of readers read, each from
// its own cursor.
#ifndef CARAVAN_GATEWAY_STREAM_RECORDING_H_
#define CARAVAN_GATEWAY_STREAM_RECORDING_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "gateway/stream/events.h"
#include "gateway/stream/inbox.h"
#include "gateway/stream/stream_cursor.h"
#include "gateway/stream/token_stream.h"

namespace caravan::gateway {

// Thread-safe.
class Recording {
 public:
  // `choice_count`: of all prompts.
  Recording(size_t prompt_count, size_t choice_count, const Clock& clock);

  // From the generation, in order.
  void Append(StreamEvents events);
  // It has ended: OK after events with `finished`.
  void End(absl::Status status);

  // What lies behind the cursor, which moves: the introduction, or new tokens
  // and text of one choice, or its end, or `finished`. So each gives at most
  // one event with a position, and the cursor after it tells all that was
  // sent. Nothing while there is nothing new.
  std::optional<StreamEvents> Read(StreamCursor& cursor) const;

  // Not OK when it ended with an error, which comes after all that was read.
  absl::Status error() const;
  bool ended() const;
  absl::Time ended_at() const;
  int64_t memory_bytes() const;

  // Readers are woken through their inbox.
  void Attach(std::shared_ptr<Inbox> reader);
  void Detach(const std::shared_ptr<Inbox>& reader);
  // Since when nobody reads; infinite future while somebody does.
  absl::Time unread_since() const;

 private:
  struct Choice {
    std::vector<TokenPiece> tokens;
    std::string text;
    std::optional<FinishReason> finish;
    std::optional<std::string> stop_text;
    std::optional<TokenId> stop_token_id;
  };

  void AddDelta(ChoiceDelta delta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<ChoiceDelta> ReadChoice(size_t index,
                                        ChoiceCursor& cursor) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WakeReaders() ABSL_LOCKS_EXCLUDED(mutex_);

  const Clock& clock_;
  const size_t prompt_count_;
  mutable absl::Mutex mutex_;
  std::optional<Started> started_ ABSL_GUARDED_BY(mutex_);
  std::vector<PromptReady> prompts_ ABSL_GUARDED_BY(mutex_);  // as they came
  std::vector<Choice> choices_ ABSL_GUARDED_BY(mutex_);
  std::optional<Finished> finished_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  absl::Time ended_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  int64_t memory_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::shared_ptr<Inbox>> readers_ ABSL_GUARDED_BY(mutex_);
  absl::Time unread_since_ ABSL_GUARDED_BY(mutex_);
};

// A reader of a recording, from a cursor on. Dropping it, or cancelling it,
// does not end the generation.
class RecordedStream final : public TokenStream {
 public:
  RecordedStream(std::shared_ptr<Recording> recording,
                 GenerationRequest request, StreamCursor cursor);
  ~RecordedStream() override;

  const GenerationRequest& request() const override { return request_; }
  boost::asio::awaitable<absl::StatusOr<StreamEvents>> Next() override;
  void Cancel(absl::Status status) override { inbox_->Cancel(status); }
  // The recording waits for slow readers; their connection does not.
  void BeginWrite() override {}
  void EndWrite() override {}
  std::string EventId() const override { return EncodeCursor(cursor_); }

 private:
  const std::shared_ptr<Recording> recording_;
  const GenerationRequest request_;
  const std::shared_ptr<Inbox> inbox_;  // only wakes
  StreamCursor cursor_;
  // What came before the cursor was sent on another connection, but this
  // one's door needs it to go on.
  bool was_introduced_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_STREAM_RECORDING_H_
