#include "gateway/backend/step_demux.h"

#include <cstdint>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/status/errors.h"
#include "common/status/grpc_status.h"

namespace caravan::gateway {
namespace {

// Finds or makes the entry of a handle. Records of one handle lie together, so
// the last one is looked at first.
class Splitter {
 public:
  HandleEvents& Of(uint64_t handle) {
    if (!events_.empty() && events_[last_].handle == handle) {
      return events_[last_];
    }
    const auto [it, is_new] = index_.try_emplace(handle, events_.size());
    if (is_new) events_.emplace_back().handle = handle;
    last_ = it->second;
    return events_[last_];
  }
  std::vector<HandleEvents> Take() { return std::move(events_); }

 private:
  std::vector<HandleEvents> events_;
  absl::flat_hash_map<uint64_t, size_t> index_;
  size_t last_ = 0;
};

// TokenRecord and PromptTokenLogprob have the same fields.
template <typename Record>
TokenPiece PieceOf(const Record& record) {
  TokenPiece piece;
  piece.id = record.token_id();
  piece.rank = record.rank();
  piece.candidates.reserve(record.candidates_size());
  for (const v1::Candidate& candidate : record.candidates()) {
    piece.candidates.push_back({candidate.token_id(), candidate.logprob()});
  }
  return piece;
}

FinishReason ReasonOf(const v1::ChoiceFinish& finish) {
  return finish.reason() == v1::FINISH_REASON_LENGTH ? FinishReason::kLength
                                                     : FinishReason::kStop;
}

void SplitPrompts(const v1::StepOutput& step, Splitter& splitter) {
  for (const v1::PromptRecord& record : step.prompts()) {
    HandleEvents& events = splitter.Of(record.handle());
    events.cached_token_count = record.cached_token_count();
    for (const v1::PromptTokenLogprob& score : record.logprobs()) {
      TokenPiece piece = PieceOf(score);
      piece.logprob = score.logprob();
      events.scores.push_back({score.position(), std::move(piece)});
    }
  }
}

void SplitTokens(const v1::StepOutput& step, Splitter& splitter) {
  for (const v1::TokenRecord& record : step.tokens()) {
    TokenPiece piece = PieceOf(record);
    if (record.has_logprob()) piece.logprob = record.logprob();
    splitter.Of(record.handle())
        .tokens.push_back(
            {record.choice(), record.position(), std::move(piece)});
  }
}

}  // namespace

std::vector<HandleEvents> SplitByHandle(const v1::StepOutput& step) {
  Splitter splitter;
  for (const uint64_t handle : step.queued()) splitter.Of(handle).queued = true;
  for (const uint64_t handle : step.started()) {
    splitter.Of(handle).started = true;
  }
  SplitPrompts(step, splitter);
  SplitTokens(step, splitter);
  for (const v1::ChoiceFinish& finish : step.finishes()) {
    splitter.Of(finish.handle())
        .finishes.push_back(
            {finish.choice(), ReasonOf(finish), finish.output_token_count()});
  }
  for (const v1::HandleError& error : step.errors()) {
    HandleEvents& events = splitter.Of(error.handle());
    events.error = FromProtoError(error.error());
    // A later stage of the replica died while the handle ran.
    events.worker_died = caravan::ReasonOf(events.error) == Reason::kWorkerLost;
  }
  return splitter.Take();
}

}  // namespace caravan::gateway
