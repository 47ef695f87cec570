// Names of a Llama's tensors in GGUF files and in Hugging Face checkpoints
// (llama.cpp's gguf-py constants, architecture "llama").
#ifndef CARAVAN_WORKER_MODEL_GGUF_NAMES_H_
#define CARAVAN_WORKER_MODEL_GGUF_NAMES_H_

#include <optional>
#include <string>
#include <string_view>

namespace caravan::worker {

// "blk.3.attn_q.weight" as "model.layers.3.self_attn.q_proj.weight"; nothing
// for what a Llama does not have.
std::optional<std::string> HuggingFaceName(std::string_view gguf_name);

// The other way; nothing for other names.
std::optional<std::string> GgufName(std::string_view hugging_face_name);

// Whether the rows of the tensor of this Hugging Face name are those of query
// or key heads, which GGUF files interleave.
bool HasRotatedRows(std::string_view hugging_face_name);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_GGUF_NAMES_H_
