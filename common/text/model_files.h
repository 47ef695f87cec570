// The tokenizer file formats, each translated into a TokenizerModel. The files
// are hostile: every count, size and id is checked before it is used. Errors
// are kModelFileInvalid and name file and entry.
//
// Thread-safe: pure functions.
#ifndef CARAVAN_COMMON_TEXT_MODEL_FILES_H_
#define CARAVAN_COMMON_TEXT_MODEL_FILES_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/gguf_file.h"
#include "common/text/tokenizer_model.h"

namespace caravan::text {

// Hugging Face's tokenizer.json: BPE, byte-level (Llama-3) or with byte
// fallback (Llama-2). Other models and steps are refused by their type.
absl::StatusOr<TokenizerModel> ParseTokenizerJson(const std::string& content,
                                                  std::string_view file);

// SentencePiece's tokenizer.model: BPE with scores.
absl::StatusOr<TokenizerModel> ParseSentencePiece(std::string_view content,
                                                  std::string_view file);

// tiktoken's ranks ("base64 rank" a line) with Llama-3's pattern. The 256
// special tokens that follow the ranks get `special_names`, or Meta's where
// that is empty.
absl::StatusOr<TokenizerModel> ParseTiktokenRanks(
    std::string_view content, std::string_view file,
    const std::vector<AddedToken>& special_tokens);

// The vocabulary, chat templates and ids of a GGUF file's metadata: tokenizer
// models "llama" and, with the pre-tokenizer of Llama-3, "gpt2".
absl::StatusOr<TokenizerModel> ParseGgufVocabulary(const gguf::File& file);

// Whether a tokenizer.model holds tiktoken ranks (else SentencePiece).
bool LooksLikeTiktokenRanks(std::string_view content);

// UTF-8 of GPT-2's byte alphabet back to bytes; nothing when a character is
// outside of it.
std::optional<std::string> FromByteAlphabet(std::string_view piece);

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_MODEL_FILES_H_
