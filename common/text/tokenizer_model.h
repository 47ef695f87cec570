// What every tokenizer file is translated into: one description of how text
// becomes ids, whatever the format it came from.
#ifndef CARAVAN_COMMON_TEXT_TOKENIZER_MODEL_H_
#define CARAVAN_COMMON_TEXT_TOKENIZER_MODEL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/text/added_tokens.h"
#include "common/text/merge_table.h"
#include "common/text/vocabulary.h"

namespace caravan::text {

// SentencePiece's visible space, U+2581.
inline constexpr std::string_view kVisibleSpace = "\xE2\x96\x81";

// Ids are below this, whatever a file says.
inline constexpr TokenId kMaxVocabularySize = 1 << 21;

// Which stretches of text between special tokens get the prefix.
enum class PrefixScheme : uint8_t { kNever, kFirst, kAlways };

// How a stretch of text is changed before it is cut into pieces.
struct Normalization {
  PrefixScheme prefix = PrefixScheme::kNever;
  // The prefix is left out where the text begins with a space.
  bool prefix_unless_present = false;
  // A space is written as U+2581. The prefix is one space.
  bool visible_spaces = false;
  // The prefix is U+2581, whatever spaces are.
  bool visible_prefix = false;
  // Spaces at both ends go, runs of spaces become one.
  bool collapse_spaces = false;
  // A piece begins at every space (after the normalization above).
  bool split_at_spaces = false;
};

// How a piece becomes symbols and ids.
struct Merging {
  // Symbols are bytes; otherwise UTF-8 characters.
  bool bytes_are_symbols = false;
  // A piece that is a token as a whole is that token, whatever merges say.
  bool whole_piece_first = false;
  // A character that is no token becomes the tokens of its bytes.
  bool byte_fallback = false;
  // Several unknown characters in a row become one unknown token.
  bool fuse_unknown = true;
  std::optional<TokenId> unknown_id;
  std::vector<MergePair> pairs;  // ascending rank
  // Characters that no token stands for but that merging begins with, at the
  // ids from vocabulary.size().
  std::vector<std::string> extra_symbols;
};

// Plain data. `pieces` and `vocabulary.tokens` have the same size.
struct TokenizerModel {
  Vocabulary vocabulary;
  // By id: the string that merging and look-up work on (visible spaces where
  // the model writes them); empty for what text never becomes by itself.
  std::vector<std::string> pieces;
  Normalization normalization;
  // Of `normalization`, what is done before the names of AddedToken::normalized
  // are looked for, and what is done to the text between them. Nothing: there
  // is nothing to do before.
  struct Stages {
    Normalization before_names;  // spaces are not collapsed
    Normalization after_names;
  };
  std::optional<Stages> stages;
  std::vector<std::string> patterns;  // pre-tokenizers, one after the other
  Merging merging;
  // Found by name, longest first: in the raw text, then, those that say so, in
  // the normalized text.
  std::vector<AddedToken> added_tokens;
  // Found by name in the normalized text; they take no part in merging.
  std::vector<TokenId> user_defined;
  // Ids that are left out of what text becomes but that occur in merging; each
  // is taken apart again into the first pair that makes it.
  std::vector<TokenId> unused;
  // What is put around plain text (EncodeOptions::add_special_tokens).
  std::vector<TokenId> prefix_ids;
  std::vector<TokenId> suffix_ids;
  std::string chat_template;
  std::vector<std::pair<std::string, std::string>> named_chat_templates;
  std::vector<std::pair<std::string, std::string>> named_tokens;
};

// Makes room for `id` in tokens and pieces; new entries are kUnused.
void GrowTo(TokenId id, TokenizerModel* model);

// Adds a token that is found by name. Its kind becomes special or normal, its
// bytes the name. Of several tokens of one name the last one counts.
void AddToken(AddedToken token, TokenizerModel* model);

// Drops the added tokens whose name was added again later.
void KeepLastOfEachName(std::vector<AddedToken>* tokens);

// The id of the token of that name: an added token, or a piece.
std::optional<TokenId> FindByName(const TokenizerModel& model,
                                  std::string_view name);

// The piece with plain spaces for visible ones.
std::string WithSpaces(std::string_view piece);

// SHA-256 of the canonical listing (DESIGN.md 1.2). Names of special tokens are
// left out: a ranks file does not know them, and no text of a user becomes or
// comes from one.
std::string TokenizerIdOf(const TokenizerModel& model);

// kModelFileInvalid: "FILE: WHAT".
absl::Status FileError(std::string_view file, std::string_view what);

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_TOKENIZER_MODEL_H_
