// Turns a growing sequence of token ids into UTF-8 text piece by piece. The
// pieces put together equal the text of decoding all ids at once.
#ifndef CARAVAN_COMMON_TEXT_INCREMENTAL_DECODER_H_
#define CARAVAN_COMMON_TEXT_INCREMENTAL_DECODER_H_

#include <span>
#include <string>

#include "common/text/vocabulary.h"

namespace caravan::text {

// Bytes that may still become a character are held back; bytes that cannot
// are given as U+FFFD, one for each maximal invalid part (Unicode 3.9, as
// Python's "replace").
//
// Not thread-safe. The vocabulary must outlive the decoder.
class IncrementalDecoder {
 public:
  IncrementalDecoder(const Vocabulary& vocabulary, bool skip_special_tokens);

  // The text that `id` completes; may be empty. Ids outside the vocabulary
  // decode to nothing.
  std::string Append(TokenId id);

  // What is still held back, as U+FFFD where it is incomplete. The decoder
  // then holds nothing.
  std::string Finish();

 private:
  const Vocabulary& vocabulary_;
  const bool skip_special_tokens_;
  bool at_start_ = true;
  std::string pending_;  // at most 3 bytes, an incomplete character
};

// The text of all ids at once.
std::string Decode(const Vocabulary& vocabulary, std::span<const TokenId> ids,
                   bool skip_special_tokens);

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_INCREMENTAL_DECODER_H_
