#include "gateway/stream/choice_stream.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::gateway {
namespace {

// Code points of valid UTF-8.
int32_t CountCharacters(std::string_view text) {
  return static_cast<int32_t>(std::count_if(
      text.begin(), text.end(),
      [](char byte) { return (static_cast<uint8_t>(byte) & 0xC0) != 0x80; }));
}

}  // namespace

ChoiceStream::ChoiceStream(int32_t prompt, int32_t choice,
                           const ChoiceOptions& options,
                           const text::IncrementalDecoder& decoder,
                           int32_t text_offset)
    : options_(options),
      decoder_(decoder),
      matcher_(options.stop),
      decoded_characters_(text_offset) {
  delta_.prompt = prompt;
  delta_.choice = choice;
}

absl::StatusOr<bool> ChoiceStream::Append(int32_t position, TokenPiece token) {
  const auto size = static_cast<int32_t>(output_.size());
  if (finished_ || position < size) return false;
  if (position > size) {
    return MakeError(
        Reason::kInternal,
        StrCat("choice ", delta_.choice, " got output position ", position,
               " while the next is ", size),
        {{"position", StrCat(position)}, {"expected", StrCat(size)}});
  }
  const TokenId id = token.id;
  output_.push_back(id);
  token.text_offset = decoded_characters_;
  delta_.tokens.push_back(std::move(token));
  const bool ends = options_.end_ids.contains(id);
  if (ends) delta_.stop_token_id = id;
  if (!ends || options_.include_stop) AppendText(decoder_.Append(id));
  return true;
}

void ChoiceStream::AppendText(std::string piece) {
  if (piece.empty()) return;
  decoded_characters_ += CountCharacters(piece);
  const size_t piece_begin = held_.size();
  held_ += piece;
  const bool report = output_.size() > static_cast<size_t>(options_.min_tokens);
  if (const auto match = matcher_.Feed(piece, report)) {
    EndAtStop(*match, piece_begin);
  } else {
    ReleaseText(matcher_.held_bytes());
  }
}

void ChoiceStream::EndAtStop(const StopMatcher::Match& match,
                             size_t piece_begin) {
  const std::string& stop = options_.stop.texts()[match.text];
  const size_t end = piece_begin + match.end;
  // The stop text began in what is held: no byte of it has left.
  held_.resize(options_.include_stop ? end : end - stop.size());
  ReleaseText(/*held=*/0);
  delta_.stop_text = stop;
  finished_ = true;
  finish_reason_ = FinishReason::kStop;
}

// Moves all but the last `held` bytes, and no part of a character, to the
// delta.
void ChoiceStream::ReleaseText(size_t held) {
  size_t release = held_.size() - std::min(held, held_.size());
  while (release > 0 && release < held_.size() &&
         (static_cast<uint8_t>(held_[release]) & 0xC0) == 0x80) {
    --release;
  }
  delta_.text.append(held_, 0, release);
  held_.erase(0, release);
}

void ChoiceStream::Finish(FinishReason reason) {
  if (finished_) return;
  AppendText(decoder_.Finish());
  if (finished_) return;  // U+FFFD completed a stop text
  ReleaseText(/*held=*/0);
  finished_ = true;
  finish_reason_ = reason;
}

bool ChoiceStream::has_delta() const {
  return !delta_.tokens.empty() || !delta_.text.empty() ||
         (finished_ && !finish_taken_);
}

ChoiceDelta ChoiceStream::TakeDelta() {
  ChoiceDelta taken = std::move(delta_);
  delta_ = ChoiceDelta();
  delta_.prompt = taken.prompt;
  delta_.choice = taken.choice;
  taken.first_position =
      static_cast<int32_t>(output_.size() - taken.tokens.size());
  if (finished_ && !finish_taken_) {
    taken.finish = finish_reason_;
    finish_taken_ = true;
  } else {
    // An end token without its finish (yet): the next delta says it.
    delta_.stop_token_id = std::exchange(taken.stop_token_id, std::nullopt);
  }
  return taken;
}

}  // namespace caravan::gateway
