// Text to token ids and back, for every tokenizer of the Llama family: one
// vocabulary, one merging core, loaders that translate into them.
#ifndef CARAVAN_COMMON_TEXT_TOKENIZER_H_
#define CARAVAN_COMMON_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/vocabulary.h"

namespace caravan::text {

struct EncodeOptions {
  // Adds BOS and whatever else the model's post-processor adds.
  bool add_special_tokens = true;
  // Recognises the names of special tokens in the text. Off: they are text.
  bool allow_special_tokens = false;
  // Remembers words within the call. Off only to measure; ids are the same.
  bool word_cache = true;
};

// A stretch of text for EncodeSpans: special tokens are recognised only where
// the text came from a template, not from a value; ordinary text is not split
// at that border.
struct TextSpan {
  std::string_view text;
  bool allow_special_tokens = false;
};

// Immutable after loading; all methods are thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Finds and loads the tokenizer of a model directory: tokenizer.json, else
  // tokenizer.model (SentencePiece or tiktoken ranks), with
  // tokenizer_config.json, special_tokens_map.json, generation_config.json
  // and config.json for the special ids. Errors: kModelFileInvalid, naming
  // file and offset or entry.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> LoadDirectory(
      const std::string& directory);

  // Ids of valid UTF-8 text. Error: kInvalidUtf8 with the byte offset.
  virtual absl::StatusOr<std::vector<TokenId>> Encode(
      std::string_view text, const EncodeOptions& options) const = 0;

  // Ids of the concatenation of `spans`. Adds no BOS by itself; see
  // EncodeOptions::add_special_tokens for plain text.
  virtual absl::StatusOr<std::vector<TokenId>> EncodeSpans(
      const std::vector<TextSpan>& spans) const = 0;

  // Every token's bytes and kind, special ids, decoder rule.
  virtual const Vocabulary& vocabulary() const = 0;

  // SHA-256 (32 bytes) of the canonical listing of ids, bytes, kinds, ranks or
  // scores, patterns and special ids: equal for every file format of one
  // vocabulary (DESIGN.md 1.2).
  virtual std::string_view tokenizer_id() const = 0;

  // The directory's default chat template (common/text/chat_template_files.h
  // says from where); empty without one.
  virtual std::string_view chat_template() const = 0;

  // Further templates by name, as (name, source): "tool_use" is the one for
  // conversations with tools.
  virtual const std::vector<std::pair<std::string, std::string>>&
  named_chat_templates() const = 0;

  // Names that templates use, such as ("bos_token", "<s>"), as the directory
  // gives them.
  virtual const std::vector<std::pair<std::string, std::string>>& named_tokens()
      const = 0;
};

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_TOKENIZER_H_
