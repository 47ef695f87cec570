// The tokenizer.ggml.* metadata of a GGUF file: "llama", a SentencePiece BPE
// model, and "gpt2", byte-level BPE with the pre-tokenizer of Llama-3.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/gguf/gguf_file.h"
#include "common/status/status_macros.h"
#include "common/strings.h"
#include "common/text/model_files.h"
#include "common/text/pre_tokenizer.h"
#include "common/text/sentencepiece_model.h"
#include "common/text/utf8.h"

namespace caravan::text {
namespace {

using gguf::Value;
using gguf::ValueType;

constexpr std::string_view kPrefix = "tokenizer.ggml.";

// Rows of the embedding that no token stands for, as converters name them.
bool IsPadding(std::string_view piece) { return piece.starts_with("[PAD"); }

class GgufParser {
 public:
  explicit GgufParser(const gguf::File& file) : file_(file) {}

  absl::StatusOr<TokenizerModel> Run() {
    CARAVAN_RETURN_IF_ERROR(ReadTokens());
    CARAVAN_ASSIGN_OR_RETURN(const std::optional<std::string> kind,
                             file_.String(Key("model")));
    if (kind == "llama") {
      CARAVAN_RETURN_IF_ERROR(BuildSentencePiece());
    } else if (kind == "gpt2") {
      CARAVAN_RETURN_IF_ERROR(BuildByteLevel());
    } else {
      return file_.Error(Key("model"), "\"llama\" or \"gpt2\"",
                         kind ? StrCat("\"", *kind, "\"") : "nothing");
    }
    CARAVAN_RETURN_IF_ERROR(SetEnds());
    CARAVAN_RETURN_IF_ERROR(SetTemplates());
    return std::move(model_);
  }

 private:
  static std::string Key(std::string_view name) {
    return StrCat(kPrefix, name);
  }

  absl::Status ReadTokens() {
    CARAVAN_ASSIGN_OR_RETURN(const Value* const tokens,
                             file_.Array(Key("tokens"), ValueType::kString));
    if (tokens == nullptr) {
      return file_.Error(Key("tokens"), "there", "nothing");
    }
    if (tokens->count < 1 || tokens->count > kMaxVocabularySize) {
      return file_.Error(Key("tokens"), StrCat("1 to ", kMaxVocabularySize),
                         StrCat(tokens->count));
    }
    tokens_ = tokens->strings;
    while (!tokens_.empty() && IsPadding(tokens_.back())) tokens_.pop_back();
    CARAVAN_ASSIGN_OR_RETURN(kinds_,
                             file_.Array(Key("token_type"), ValueType::kI32));
    return CheckLength("token_type", kinds_, tokens->count);
  }

  absl::Status CheckLength(std::string_view name, const Value* array,
                           uint64_t count) const {
    if (array == nullptr || array->count == count) return absl::OkStatus();
    return file_.Error(Key(name), StrCat(count, " entries, as tokens has"),
                       StrCat(array->count));
  }

  PieceType KindOf(size_t id) const {
    if (kinds_ == nullptr) return PieceType::kNormal;
    return static_cast<PieceType>(kinds_->Integer(id));
  }

  absl::StatusOr<bool> Flag(std::string_view name, bool otherwise) const {
    CARAVAN_ASSIGN_OR_RETURN(const std::optional<bool> flag,
                             file_.Bool(Key(name)));
    return flag.value_or(otherwise);
  }

  // The id under that key; nothing where it is absent or of no token.
  absl::StatusOr<std::optional<TokenId>> Id(std::string_view name) const {
    CARAVAN_ASSIGN_OR_RETURN(const std::optional<int64_t> id,
                             file_.Integer(Key(name), 0, UINT32_MAX));
    if (!id || *id >= model_.vocabulary.size()) return std::optional<TokenId>();
    return std::optional<TokenId>(static_cast<TokenId>(*id));
  }

  absl::Status BuildSentencePiece() {
    CARAVAN_ASSIGN_OR_RETURN(const Value* const scores,
                             file_.Array(Key("scores"), ValueType::kF32));
    if (scores == nullptr) {
      return file_.Error(Key("scores"), "there", "nothing");
    }
    if (scores->count < tokens_.size()) {
      return CheckLength("scores", scores, tokens_.size());
    }
    SentencePieceModel parsed;
    parsed.model_type = 2;
    parsed.bos_id = parsed.eos_id = -1;
    CARAVAN_ASSIGN_OR_RETURN(parsed.add_dummy_prefix,
                             Flag("add_space_prefix", true));
    CARAVAN_ASSIGN_OR_RETURN(parsed.remove_extra_whitespaces,
                             Flag("remove_extra_whitespaces", false));
    const Value* const charsmap = file_.Find(Key("precompiled_charsmap"));
    if (charsmap != nullptr) parsed.charsmap_bytes = charsmap->count;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      parsed.pieces.push_back({.text = std::string(tokens_[id]),
                               .score = static_cast<float>(scores->Number(id)),
                               .type = KindOf(id)});
      parsed.byte_fallback |= KindOf(id) == PieceType::kByte;
    }
    CARAVAN_ASSIGN_OR_RETURN(model_, ModelOf(std::move(parsed), file_.file()));
    return absl::OkStatus();
  }

  absl::Status BuildByteLevel() {
    CARAVAN_ASSIGN_OR_RETURN(const std::optional<std::string> pre,
                             file_.String(Key("pre")));
    constexpr std::string_view kKnown[] = {"llama-bpe", "llama3", "llama-v3"};
    if (!pre || std::ranges::find(kKnown, *pre) == std::end(kKnown)) {
      return file_.Error(Key("pre"),
                         "\"llama-bpe\", \"llama3\" or \"llama-v3\"",
                         pre ? StrCat("\"", *pre, "\"") : "nothing");
    }
    model_.patterns = {std::string(kLlama3Pattern)};
    model_.merging.bytes_are_symbols = true;
    model_.merging.whole_piece_first = true;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      CARAVAN_RETURN_IF_ERROR(AddByteLevel(static_cast<TokenId>(id)));
    }
    return ReadMerges();
  }

  absl::Status AddByteLevel(TokenId id) {
    const std::string_view piece = tokens_[id];
    if (piece.empty() || piece.size() > kMaxPieceBytes) {
      return file_.Error(StrCat("bytes of token ", id),
                         StrCat("1 to ", kMaxPieceBytes), StrCat(piece.size()));
    }
    const PieceType kind = KindOf(id);
    GrowTo(id, &model_);
    if (kind == PieceType::kControl || kind == PieceType::kUserDefined) {
      AddToken({.name = std::string(piece),
                .id = id,
                .special = kind == PieceType::kControl},
               &model_);
      return absl::OkStatus();
    }
    if (kind == PieceType::kUnused && IsPadding(piece)) return absl::OkStatus();
    const std::optional<std::string> bytes = FromByteAlphabet(piece);
    model_.vocabulary.tokens[id] = {bytes.value_or(std::string(piece)),
                                    TokenKind::kNormal};
    model_.pieces[id] = bytes.value_or("");
    if (!ids_.try_emplace(std::string(piece), id).second) {
      return file_.Error(StrCat("token ", id), "the only one of its bytes",
                         "another");
    }
    return absl::OkStatus();
  }

  absl::Status ReadMerges() {
    CARAVAN_ASSIGN_OR_RETURN(const Value* const merges,
                             file_.Array(Key("merges"), ValueType::kString));
    if (merges == nullptr) {
      return file_.Error(Key("merges"), "there", "nothing");
    }
    uint32_t rank = 0;
    for (const std::string_view merge : merges->strings) {
      const size_t space = merge.find(' ');
      const std::string left(merge.substr(0, space));
      const std::string right(
          space == std::string_view::npos ? "" : merge.substr(space + 1));
      const auto l = ids_.find(left);
      const auto r = ids_.find(right);
      const auto result = ids_.find(left + right);
      if (l == ids_.end() || r == ids_.end() || result == ids_.end()) {
        return file_.Error(StrCat(Key("merges"), "[", rank, "]"),
                           "two tokens that make a third", "others");
      }
      model_.merging.pairs.push_back(
          {l->second, r->second, result->second, rank});
      ++rank;
    }
    return absl::OkStatus();
  }

  absl::Status SetEnds() {
    Vocabulary& vocabulary = model_.vocabulary;
    CARAVAN_ASSIGN_OR_RETURN(vocabulary.bos_id, Id("bos_token_id"));
    vocabulary.eos_ids.clear();
    for (const char* const name :
         {"eos_token_id", "eot_token_id", "eom_token_id"}) {
      CARAVAN_ASSIGN_OR_RETURN(const std::optional<TokenId> id, Id(name));
      if (id && std::ranges::find(vocabulary.eos_ids, *id) ==
                    vocabulary.eos_ids.end()) {
        vocabulary.eos_ids.push_back(*id);
      }
    }
    model_.prefix_ids.clear();
    CARAVAN_ASSIGN_OR_RETURN(const bool add_bos, Flag("add_bos_token", true));
    if (add_bos && vocabulary.bos_id) {
      model_.prefix_ids = {*vocabulary.bos_id};
    }
    CARAVAN_ASSIGN_OR_RETURN(const bool add_eos, Flag("add_eos_token", false));
    if (add_eos && !vocabulary.eos_ids.empty()) {
      model_.suffix_ids = {vocabulary.eos_ids.front()};
    }
    return absl::OkStatus();
  }

  absl::Status SetTemplates() {
    constexpr std::string_view kTemplate = "tokenizer.chat_template";
    CARAVAN_ASSIGN_OR_RETURN(const std::optional<std::string> source,
                             file_.String(kTemplate));
    model_.chat_template = source.value_or("");
    CARAVAN_ASSIGN_OR_RETURN(
        const Value* const names,
        file_.Array("tokenizer.chat_templates", ValueType::kString));
    if (names == nullptr) return absl::OkStatus();
    for (const std::string_view name : names->strings) {
      CARAVAN_ASSIGN_OR_RETURN(std::optional<std::string> named,
                               file_.String(StrCat(kTemplate, ".", name)));
      if (!named) continue;
      model_.named_chat_templates.emplace_back(name, *std::move(named));
    }
    return absl::OkStatus();
  }

  const gguf::File& file_;
  std::vector<std::string_view> tokens_;
  const Value* kinds_ = nullptr;
  TokenizerModel model_;
  absl::flat_hash_map<std::string, TokenId> ids_;
};

}  // namespace

absl::StatusOr<TokenizerModel> ParseGgufVocabulary(const gguf::File& file) {
  return GgufParser(file).Run();
}

}  // namespace caravan::text
