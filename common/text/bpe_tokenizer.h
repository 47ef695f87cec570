// The one tokenizer: what a TokenizerModel describes, made fast.
#ifndef CARAVAN_COMMON_TEXT_BPE_TOKENIZER_H_
#define CARAVAN_COMMON_TEXT_BPE_TOKENIZER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/text/added_tokens.h"
#include "common/text/formed_characters.h"
#include "common/text/merge_table.h"
#include "common/text/piece_table.h"
#include "common/text/pre_tokenizer.h"
#include "common/text/tokenizer.h"
#include "common/text/tokenizer_model.h"

namespace caravan::text {

// Immutable; thread-safe.
class BpeTokenizer final : public Tokenizer {
 public:
  // Error: kModelFileInvalid where the parts do not fit together (a byte that
  // text can have but no token has, a pattern that is not valid).
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(
      TokenizerModel model);

  absl::StatusOr<std::vector<TokenId>> Encode(
      std::string_view text, const EncodeOptions& options) const override;
  absl::StatusOr<std::vector<TokenId>> EncodeSpans(
      const std::vector<TextSpan>& spans) const override;
  const Vocabulary& vocabulary() const override { return model_.vocabulary; }
  std::string_view tokenizer_id() const override { return tokenizer_id_; }
  std::string_view chat_template() const override {
    return model_.chat_template;
  }
  const std::vector<std::pair<std::string, std::string>>& named_chat_templates()
      const override {
    return model_.named_chat_templates;
  }
  const std::vector<std::pair<std::string, std::string>>& named_tokens()
      const override {
    return model_.named_tokens;
  }

 private:
  // End of a stretch of one permission to recognise special tokens.
  struct Border {
    size_t end;
    bool allow_special;
  };

  explicit BpeTokenizer(TokenizerModel model);
  absl::Status Prepare();
  absl::Status PrepareByteSymbols();
  void PreparePieces();
  void PrepareNames();
  void PrepareNeighbours();
  void PrepareFormedCharacters();
  void AddFormedNeighbours(std::string_view piece, size_t at);
  void PrepareWholePieces();
  TokenId SymbolOf(uint32_t code_point) const;
  bool MergesStopAtSpaces() const;

  // The names that are looked for in one form of the text.
  struct Names {
    NameMatcher special;  // values index added_tokens
    NameMatcher text;     // the same; those that are not special
    // By first byte: 1 where a name of `text` may begin, 2 for `special`.
    std::array<uint8_t, 256> begins = {};

    void Add(const AddedToken& token, std::string_view name, int32_t index);
    bool empty() const { return special.empty() && text.empty(); }
    bool CanBegin(char c, bool allow_special) const {
      return begins[static_cast<unsigned char>(c)] & (allow_special ? 3 : 1);
    }
  };
  // The added token that begins at `offset`. Special ones only end inside
  // `special_end`. Null with the size of a name that must stand alone and does
  // not: as in the tokenizers library, nothing else begins inside of it.
  const AddedToken* FindAdded(const Names& names, std::string_view text,
                              size_t offset, size_t special_end,
                              size_t* size) const;
  bool StandsAlone(std::string_view text, size_t begin, size_t end) const;

  // A piece on its way through merging.
  struct Symbols {
    std::vector<TokenId> ids;
    MergeScratch scratch;
  };
  // What one call writes to.
  struct Output {
    std::vector<TokenId> ids;
    std::optional<WordCache> words;
    std::vector<std::string_view> pieces;
    Symbols symbols;
  };
  absl::StatusOr<std::vector<TokenId>> EncodeJoined(
      std::string_view text, const std::vector<Border>& borders,
      bool word_cache) const;
  // Calls `between(begin, end)` for what lies between the names (it may be
  // empty) and appends the tokens, in order.
  template <class Between>
  absl::Status ForEachName(const Names& names, std::string_view text,
                           const std::vector<Border>& borders,
                           const Between& between, Output* out) const;
  absl::Status EncodeBetweenNames(std::string_view text,
                                  const std::vector<Border>& borders,
                                  size_t begin, size_t end, Output* out) const;
  static std::vector<Border> BordersInside(std::string_view text,
                                           const std::vector<Border>& borders,
                                           size_t begin, size_t end,
                                           std::string_view normal);
  absl::Status EncodeStretch(const Normalization& normalization,
                             std::string_view text, bool at_text_start,
                             Output* out) const;
  absl::Status EncodeNormalized(std::string_view text, Output* out) const;
  void SplitAtSpaces(std::string_view text, Output* out) const;
  absl::Status SplitByAll(std::string_view text, Output* out) const;
  void EncodePieces(Output* out) const;
  void EncodePiece(std::string_view piece, Output* out) const;
  // Without looking it up.
  void MergePiece(std::string_view piece, Symbols* symbols,
                  std::vector<TokenId>* ids) const;
  void AppendSymbols(std::string_view piece,
                     std::vector<TokenId>* symbols) const;
  void AppendUnknown(std::string_view character,
                     std::vector<TokenId>* symbols) const;
  void AppendResult(TokenId symbol, std::vector<TokenId>* ids) const;

  TokenizerModel model_;
  std::string tokenizer_id_;
  MergeTable merges_;
  std::vector<std::unique_ptr<PreTokenizer>> pre_tokenizers_;
  // Pieces that become one token whatever stands around them: those that are
  // looked up first, or that merging makes of themselves.
  PieceTable whole_pieces_;
  // No merge crosses from another character to a visible space, so that text
  // can be cut there.
  bool cut_at_spaces_ = false;
  // Symbols by code point: of the lower ones directly, a negative number where
  // there is none.
  std::vector<TokenId> low_characters_;
  absl::flat_hash_map<uint32_t, TokenId> characters_;
  bool has_all_byte_tokens_ = false;        // for fallback
  std::optional<FormedCharacters> formed_;  // where bytes are symbols
  // Pairs of first symbols that stand side by side in some piece. No merge
  // crosses any other border, so text falls apart there.
  PairFilter neighbours_;
  std::array<TokenId, 256> byte_ids_;  // symbols, or the tokens of fallback
  Names raw_names_;
  Names normalized_names_;
  NameMatcher user_defined_;                             // values are ids
  absl::flat_hash_map<TokenId, MergePair> taken_apart_;  // of `unused`
};

}  // namespace caravan::text

#endif  // CARAVAN_COMMON_TEXT_BPE_TOKENIZER_H_
