// What the renderers of chat and completions have in common.
#ifndef CARAVAN_GATEWAY_OPENAI_CHUNK_RENDERER_H_
#define CARAVAN_GATEWAY_OPENAI_CHUNK_RENDERER_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gateway/openai/renderer.h"

namespace caravan::gateway::openai {

// Opens and closes objects; a subclass writes choices.
class ChunkRenderer : public Renderer {
 public:
  std::vector<std::string> Chunks(const StreamEvents& events) final;

 protected:
  ChunkRenderer(const GenerationRequest& request, ResponseHead head,
                std::string_view chunk_object)
      : request_(request),
        head_(std::move(head)),
        chunk_object_(chunk_object) {}

  // One JSON value of "choices" for each chunk that an event gives.
  virtual std::vector<std::string> StartChoices() = 0;
  virtual std::vector<std::string> PromptChoices(const PromptReady& prompt) = 0;
  virtual std::vector<std::string> DeltaChoices(const ChoiceDelta& delta) = 0;

  // "id" up to "model"; leaves the object open.
  void BeginObject(std::string_view object, JsonWriter& json) const;
  // prompt_token_ids, where asked for and there is one prompt.
  void WritePromptIds(JsonWriter& json) const;

  int32_t IndexOf(const ChoiceDelta& delta) const {
    return delta.prompt * request_.n + delta.choice;
  }
  const text::Vocabulary& vocabulary() const { return *started_.vocabulary; }

  const GenerationRequest& request_;
  const ResponseHead head_;
  Started started_;
  std::vector<PromptReady> prompts_;  // those that came, by index

 private:
  std::string Chunk(std::string_view choices, const Finished* last);
  std::string UsageChunk(const Finished& finished);

  const std::string_view chunk_object_;
  bool prompt_ids_written_ = false;
};

}  // namespace caravan::gateway::openai

#endif  // CARAVAN_GATEWAY_OPENAI_CHUNK_RENDERER_H_
