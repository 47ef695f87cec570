// Collects the events of a generation into one answer.
#ifndef CARAVAN_GATEWAY_STREAM_AGGREGATOR_H_
#define CARAVAN_GATEWAY_STREAM_AGGREGATOR_H_

#include <optional>
#include <string>
#include <vector>

#include "gateway/stream/events.h"

namespace caravan::gateway {

// One choice, whole.
struct CompletedChoice {
  std::string text;
  std::vector<TokenPiece> tokens;
  int32_t first_position = 0;  // of `tokens`; over 0 where it was resumed
  FinishReason finish = FinishReason::kStop;
  std::optional<std::string> stop_text;
  std::optional<TokenId> stop_token_id;
  std::vector<ToolCall> tool_calls;
};

// A generation, whole.
struct Completion {
  Started started;
  std::vector<PromptReady> prompts;      // by index
  std::vector<CompletedChoice> choices;  // prompt * n + index within n
  Finished finished;
};

// Not thread-safe.
class Aggregator {
 public:
  Aggregator(int32_t prompt_count, int32_t n);

  // Takes the next events. After those with `finished`, completion() is whole.
  void Add(StreamEvents events);

  const Completion& completion() const { return completion_; }

 private:
  void AddDelta(ChoiceDelta delta);

  const int32_t n_;
  Completion completion_;
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_STREAM_AGGREGATOR_H_
