// A made-up byte-level BPE tokenizer of a given size, for models with random
// weights: it can encode and decode every text.
#ifndef CARAVAN_WORKER_MODEL_RANDOM_TOKENIZER_H_
#define CARAVAN_WORKER_MODEL_RANDOM_TOKENIZER_H_

#include <cstdint>
#include <string>

namespace caravan::worker {

// Control tokens at the end of the vocabulary, with Llama-3's names.
inline constexpr int32_t kRandomTokenizerSpecials = 6;
// The 256 bytes, at least one merge, and the control tokens.
inline constexpr int32_t kLeastRandomVocabulary =
    256 + 1 + kRandomTokenizerSpecials;
// Beyond it there would not be enough made-up words.
inline constexpr int32_t kMostRandomVocabulary = 490'000;

// Ids of control tokens.
inline constexpr int32_t RandomBosId(int32_t vocab_size) {
  return vocab_size - 6;
}
inline constexpr int32_t RandomEndOfTextId(int32_t vocab_size) {
  return vocab_size - 5;
}
inline constexpr int32_t RandomEndOfTurnId(int32_t vocab_size) {
  return vocab_size - 2;
}

// tokenizer.json: bytes, then words of lower-case letters with and without a
// leading space, then the control tokens. `vocab_size` in
// [kLeastRandomVocabulary, kMostRandomVocabulary].
std::string RandomTokenizerJson(int32_t vocab_size);

// tokenizer_config.json, with a chat template.
std::string RandomTokenizerConfigJson();

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_MODEL_RANDOM_TOKENIZER_H_
