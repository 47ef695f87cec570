// What a generation gives to its front door, piece by piece.
#ifndef CARAVAN_GATEWAY_STREAM_EVENTS_H_
#define CARAVAN_GATEWAY_STREAM_EVENTS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/text/vocabulary.h"
#include "gateway/request.h"

namespace caravan::gateway {

enum class FinishReason { kStop, kLength, kToolCalls };

// A rival of a token.
struct Candidate {
  TokenId id = 0;
  float logprob = 0;
};

// A token with what was asked for beside it.
struct TokenPiece {
  TokenId id = 0;
  std::optional<float> logprob;
  int32_t rank = 0;                   // from 1; 0 where not asked for
  std::vector<Candidate> candidates;  // descending
  int32_t text_offset = 0;  // characters of the choice's text before it
};

// New tokens and text of one choice. A token's text may come later than the
// token: while a character is incomplete or a stop text may have begun.
struct ChoiceDelta {
  int32_t prompt = 0;  // index of the prompt
  int32_t choice = 0;  // index within n
  int32_t first_position = 0;
  std::vector<TokenPiece> tokens;
  std::string text;  // valid UTF-8
  std::optional<FinishReason> finish;
  std::optional<std::string> stop_text;  // the stop text that was met
  std::optional<TokenId> stop_token_id;  // the stop token that was met
  // The calls that the choice's text was; with finish kToolCalls.
  std::vector<ToolCall> tool_calls;
};

// A prompt is prepared and placed. Comes before the deltas of its choices.
struct PromptReady {
  int32_t prompt = 0;
  std::vector<TokenId> token_ids;
  // From the second token on; only where prompt logprobs were asked for.
  std::vector<TokenPiece> scores;
  // Where the prompt is echoed: its decoded text, and each token's offset.
  std::string text;
  std::vector<int32_t> text_offsets;
};

// First event.
struct Started {
  std::string request_id;
  std::string model;
  uint64_t seed = 0;
  std::string system_fingerprint;
  uint64_t identity_tag = 0;  // of weights, class and fingerprint
  std::shared_ptr<const text::Vocabulary> vocabulary;
};

// A continuation outside the numerics class.
struct InexactResume {
  int32_t choice = 0;  // prompt * n + index within n
  int32_t from_position = 0;
  std::string numerics_class;
};

// Last event.
struct Finished {
  int32_t prompt_token_count = 0;  // of all prompts
  int32_t output_token_count = 0;  // of all choices
  int32_t cached_token_count = 0;
  std::string receipt;  // caravan.v1.Receipt, serialized
  std::vector<InexactResume> inexact_resumes;
};

// What one wake-up gave, in the order of the fields.
struct StreamEvents {
  std::optional<Started> started;
  std::vector<PromptReady> prompts;
  std::vector<ChoiceDelta> deltas;
  std::optional<Finished> finished;
  // The client has `started` and `prompts` from an earlier connection: they
  // are only for the door.
  bool repeated = false;

  bool empty() const {
    return !started && prompts.empty() && deltas.empty() && !finished;
  }
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_STREAM_EVENTS_H_
