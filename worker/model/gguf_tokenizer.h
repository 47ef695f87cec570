// A model's tokenizer as metadata of a GGUF file.
#ifndef CARAVAN_WORKER_MODEL_GGUF_TOKENIZER_H_
#define CARAVAN_WORKER_MODEL_GGUF_TOKENIZER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/gguf/gguf_writer.h"

namespace caravan::worker {

// Adds tokenizer.ggml.* and the chat template of the model `source`: those of
// its GGUF file, or made from tokenizer.json and tokenizer_config.json, padded
// to `vocab_size` tokens. Errors (kModelFileInvalid, kUnsupportedParameter)
// name file and key.
absl::Status AddTokenizerMetadata(const std::string& source, int64_t vocab_size,
                                  gguf::HeaderWriter& header);

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_GGUF_TOKENIZER_H_
