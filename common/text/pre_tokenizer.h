// Cuts text into the pieces inside which merging happens.
#ifndef CARAVAN_COMMON_TEXT_PRE_TOKENIZER_H_
#define CARAVAN_COMMON_TEXT_PRE_TOKENIZER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caravan::text {

// Llama-3's split pattern: contractions; letters with one character before
// them; up to three digits; punctuation with its line ends; white space.
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// GPT-2's, which a ByteLevel pre-tokenizer with `use_regex` means.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|)"
    R"(\s+(?!\S)|\s+)";

// Immutable; thread-safe.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;

  // Appends up to `most` pieces of valid UTF-8 `text` from `start`, where a
  // piece begins, in order: matches of the pattern and what lies between them;
  // together they are the text. Returns where the next one begins. Fails only
  // where a pattern given as data exceeds its match limit.
  virtual absl::StatusOr<size_t> SplitSome(
      std::string_view text, size_t start, size_t most,
      std::vector<std::string_view>* pieces) const = 0;

  // All pieces of the text.
  absl::Status Split(std::string_view text,
                     std::vector<std::string_view>* pieces) const;

  // For one pattern: written by hand for those above, else PCRE2. Error:
  // kModelFileInvalid with offset and reason when the pattern is not valid.
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> Create(
      const std::string& pattern);
};

// PCRE2 for any pattern; exposed so that tests can compare.
absl::StatusOr<std::unique_ptr<PreTokenizer>> CreatePcrePreTokenizer(
    const std::string& pattern);

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_PRE_TOKENIZER_H_
