#include "gateway/stream/aggregator.h"

#include <iterator>
#include <utility>

namespace caravan::gateway {

Aggregator::Aggregator(int32_t prompt_count, int32_t n) : n_(n) {
  completion_.prompts.resize(prompt_count);
  completion_.choices.resize(prompt_count * n);
}

void Aggregator::Add(StreamEvents events) {
  if (events.started) completion_.started = *std::move(events.started);
  for (PromptReady& prompt : events.prompts) {
    completion_.prompts[prompt.prompt] = std::move(prompt);
  }
  for (ChoiceDelta& delta : events.deltas) AddDelta(std::move(delta));
  if (events.finished) completion_.finished = *std::move(events.finished);
}

void Aggregator::AddDelta(ChoiceDelta delta) {
  CompletedChoice& choice =
      completion_.choices[delta.prompt * n_ + delta.choice];
  if (choice.tokens.empty()) choice.first_position = delta.first_position;
  choice.text += delta.text;
  std::move(delta.tokens.begin(), delta.tokens.end(),
            std::back_inserter(choice.tokens));
  if (!delta.finish) return;
  choice.finish = *delta.finish;
  choice.stop_text = std::move(delta.stop_text);
  choice.stop_token_id = delta.stop_token_id;
  choice.tool_calls = std::move(delta.tool_calls);
}

}  // namespace caravan::gateway
