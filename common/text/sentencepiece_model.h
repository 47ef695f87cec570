// What a SentencePiece model says, whichever file it came in.
#ifndef CARAVAN_COMMON_TEXT_SENTENCEPIECE_MODEL_H_
#define CARAVAN_COMMON_TEXT_SENTENCEPIECE_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/tokenizer_model.h"

namespace caravan::text {

// Numbers as in the files.
enum class PieceType : uint64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct SentencePiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::kNormal;
};

// What the file says, with protobuf's defaults.
struct SentencePieceModel {
  std::vector<SentencePiece> pieces;
  // trainer_spec
  uint64_t model_type = 1;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  int64_t bos_id = 1;
  int64_t eos_id = 2;
  // normalizer_spec
  size_t charsmap_bytes = 0;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// Pieces are checked; errors (kModelFileInvalid) name `file` and piece. Only
// BPE without a character map.
absl::StatusOr<TokenizerModel> ModelOf(SentencePieceModel parsed,
                                       std::string_view file);

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_SENTENCEPIECE_MODEL_H_
