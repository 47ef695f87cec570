// One choice as the client sees it: tokens in by position, text out.
#ifndef CARAVAN_GATEWAY_STREAM_CHOICE_STREAM_H_
#define CARAVAN_GATEWAY_STREAM_CHOICE_STREAM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "common/text/incremental_decoder.h"
#include "gateway/stream/events.h"
#include "gateway/stream/stop_matcher.h"

namespace caravan::gateway {

// What all choices of a request have in common. Immutable.
struct ChoiceOptions {
  StopTexts stop{{}};
  // The model's end tokens (unless ignored) and the request's stop tokens: the
  // last token of a choice, and no text.
  absl::flat_hash_set<TokenId> end_ids;
  int32_t min_tokens = 0;  // stop texts count from the next token on
  bool include_stop = false;
};

// Text and deltas are a pure function of the tokens by position, however they
// were cut into steps and workers.
//
// Not thread-safe. The options must outlive the stream.
class ChoiceStream {
 public:
  // `decoder` stands at the end of the prompt. `text_offset`: characters
  // before the output (of an echoed prompt).
  ChoiceStream(int32_t prompt, int32_t choice, const ChoiceOptions& options,
               const text::IncrementalDecoder& decoder,
               int32_t text_offset = 0);

  // Takes the token at `position` of the output. One that is there already,
  // and any after the end, is dropped. Error: kInternal for a gap. Returns
  // whether the token is new.
  absl::StatusOr<bool> Append(int32_t position, TokenPiece token);

  // The choice has ended by an end token or its length. Ignored when it ended
  // before.
  void Finish(FinishReason reason);

  // What is new since the last call.
  bool has_delta() const;
  ChoiceDelta TakeDelta();

  bool finished() const { return finished_; }
  FinishReason finish_reason() const { return finish_reason_; }
  const std::vector<TokenId>& output() const { return output_; }

 private:
  void AppendText(std::string piece);
  void ReleaseText(size_t held);
  void EndAtStop(const StopMatcher::Match& match, size_t piece_begin);

  const ChoiceOptions& options_;
  text::IncrementalDecoder decoder_;
  StopMatcher matcher_;
  std::vector<TokenId> output_;
  std::string held_;  // decoded, may begin a stop text
  int32_t decoded_characters_;
  bool finished_ = false;
  bool finish_taken_ = false;
  FinishReason finish_reason_ = FinishReason::kStop;
  ChoiceDelta delta_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_STREAM_CHOICE_STREAM_H_
