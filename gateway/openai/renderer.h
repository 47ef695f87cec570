// Turns the events of a generation into OpenAI's objects: a list of chunks for
// a stream, one object for a unary answer.
#ifndef CARAVAN_GATEWAY_OPENAI_RENDERER_H_
#define CARAVAN_GATEWAY_OPENAI_RENDERER_H_

#include <memory>
#include <string>
#include <vector>

#include "gateway/openai/response_parts.h"
#include "gateway/request.h"
#include "gateway/stream/aggregator.h"
#include "gateway/stream/events.h"

namespace caravan::gateway::openai {

// Not thread-safe. One for each response.
class Renderer {
 public:
  virtual ~Renderer() = default;

  // The chunks for these events, each one JSON object. The last chunk of the
  // stream carries the receipt.
  virtual std::vector<std::string> Chunks(const StreamEvents& events) = 0;

  // The whole answer.
  virtual std::string Body(const Completion& completion) = 0;
};

// For request.endpoint kChat and kCompletions. `request` must outlive the
// renderer.
std::unique_ptr<Renderer> MakeRenderer(const GenerationRequest& request,
                                       ResponseHead head);

}  // namespace caravan::gateway::openai

#endif  // CARAVAN_GATEWAY_OPENAI_RENDERER_H_
